"""What is known about the threshold while scoring: which bytes need to travel."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Bounds:
    """[lo, hi) around the threshold to be: score >= hi is kept for sure, score < lo dropped for sure."""

    lo: float
    hi: float


EVERYTHING = Bounds(-inf, inf)
"""Every sample's bytes travel to borderline/: nothing is known yet."""
NOTHING = Bounds(inf, inf)
"""No sample's bytes travel: scores alone."""
