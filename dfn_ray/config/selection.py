"""The sections on selection: `[select]`, the samples that are kept, and `[calibration]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dfn_ray.config.checks import Fraction, NonNegative, Positive, Text
from dfn_ray.config.sections import require_rules, section


@section
class Select:
    """`[select]`: the scored samples to keep, by exactly one of fraction, count and threshold."""

    keep_fraction: Fraction | None = None
    """Keeps floor(keep_fraction * N) samples, 0 to 1. The DFN paper keeps 0.15 of the pool."""
    keep_count: NonNegative | None = None
    """Keeps exactly this many samples, >= 0, or all scored samples if there are fewer."""
    threshold: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Keeps every score >= threshold, -1 to 1."""
    of: Literal["pool", "readable", "scored"] = "pool"
    """N of `keep_fraction`. `pool`: all samples. `readable`: those that did not fail. `scored`:
    those with a score."""
    network: Text | None = None
    """Name of the network whose score decides. None: the first network."""

    def __post_init__(self) -> None:
        require_rules(self._broken_rules())

    def _broken_rules(self) -> Iterator[str]:
        names = ("keep_fraction", "keep_count", "threshold")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            yield (
                "keep_fraction: need exactly one of keep_fraction, keep_count and threshold, "
                f"got {got}"
            )


@section
class Calibration:
    """`[calibration]`: a first estimate of the threshold.

    With it, only bytes of samples that may be kept are copied. It affects only the number of bytes
    copied, not the result.
    """

    shards: Positive = 256
    """Shards to sample from, >= 1."""
    samples: Positive = 65_536
    """Samples to score, spread over those shards, >= 1."""
    confidence: Annotated[float, Field(ge=0.5, le=0.999999)] = 0.999
    """Confidence of the bootstrap interval for the threshold, 0.5 to 0.999999."""
