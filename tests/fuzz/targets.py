"""All targets, and which of them an input belongs to."""

from __future__ import annotations

from tests.fuzz import parquets, sidecars, tars
from tests.fuzz.case import Target

TARGETS: tuple[Target, ...] = (tars.TARGET, parquets.TARGET, sidecars.TARGET)

_ROUND = tuple(target for target in TARGETS for _ in range(target.share))


def target_of(index: int) -> Target:
    """The target of the input `index`."""
    return _ROUND[index % len(_ROUND)]
