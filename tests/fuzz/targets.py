"""All targets, and the target of each input."""

from __future__ import annotations

from tests.fuzz import (
    captions,
    folders,
    images,
    networks,
    parquets,
    recipes,
    runs,
    several,
    sidecars,
    tars,
    uid_lists,
)
from tests.fuzz.case import Target

TARGETS: tuple[Target, ...] = tuple(
    part.TARGET
    for part in (
        tars,
        parquets,
        images,
        sidecars,
        several,
        captions,
        uid_lists,
        recipes,
        networks,
        folders,
        runs,
    )
)

_ROUND = tuple(target for target in TARGETS for _ in range(target.share))


def target_of(index: int) -> Target:
    """The target of the input `index`."""
    return _ROUND[index % len(_ROUND)]
