"""Statuses of samples: marks them as scored, rejected or failed, and counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.schema import BYTE_COLUMNS, Reason, Status, status_key


def undecided_rows(samples: pa.Table) -> np.ndarray:
    """Positions of the samples without a status, ascending int64."""
    return np.flatnonzero(pc.is_null(samples["status"]).to_numpy())


def mark(
    samples: pa.Table,
    rows: np.ndarray,
    reasons: Sequence[Reason | None],
    *,
    otherwise: Status | None = None,
) -> pa.Table:
    """The samples with status and reason set at `rows`; `otherwise`: status without a reason."""
    status, reason = samples["status"].to_pylist(), samples["reason"].to_pylist()
    for row, why in zip(rows.tolist(), reasons, strict=True):
        if why is not None:
            status[row] = why.status.value
            reason[row] = why.value
        elif otherwise is not None:
            status[row] = otherwise.value
    for name, values in (("status", status), ("reason", reason)):
        samples = replace_column(samples, name, pa.array(values, pa.string()))
    return samples


def with_bytes_of(samples: pa.Table, keeps: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The samples with images, captions and metadata where `keeps` is true, and null elsewhere.

    The result does not contain the other bytes; that of `if_else` does, although it is null there.
    """
    rows = pc.if_else(keeps, pa.array(np.arange(len(samples))), pa.scalar(None, pa.int64()))
    for name in BYTE_COLUMNS:
        samples = replace_column(samples, name, samples[name].take(rows))
    return samples


def status_counts(samples: pa.Table) -> Counter[str]:
    """Number of samples by status and reason, see `status_key`."""
    grouped = samples.group_by(["status", "reason"]).aggregate([([], "count_all")]).to_pylist()
    return Counter({status_key(row["status"], row["reason"]): row["count_all"] for row in grouped})


def replace_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with the values of the column `name` replaced."""
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(index), values)
