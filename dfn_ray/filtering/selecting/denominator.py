"""N of `keep_fraction`: the samples that `select.of` counts, by their status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.config import Select
from dfn_ray.schema import Status


def in_denominator(status: Any, select: Select) -> Any:
    """Boolean mask of the rows that count for N, by their status."""
    if select.of == "scored":
        return pc.equal(status, Status.SCORED.value)
    if select.of == "readable":
        return pc.not_equal(status, Status.FAILED.value)
    return pc.is_valid(status)


def denominator(counts: Mapping[str, int], select: Select) -> int:
    """N, from the number of samples by `status_key`."""
    status = pa.array([key.partition("/")[0] for key in counts], pa.string())
    return sum(
        count
        for count, is_counted in zip(
            counts.values(), in_denominator(status, select).to_pylist(), strict=True
        )
        if is_counted
    )
