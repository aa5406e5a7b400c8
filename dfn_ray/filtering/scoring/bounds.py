"""Bounds for the threshold while scoring: they decide which bytes are written."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Bounds:
    """[lo, hi) around the future threshold: score >= hi is surely kept, < lo surely dropped."""

    lo: float
    hi: float


EVERYTHING = Bounds(-inf, inf)
"""Writes every sample's bytes to borderline/: nothing is known yet."""
NOTHING = Bounds(inf, inf)
"""Writes no bytes, only scores."""
