"""How far two lists of scores are apart, and how far they would be by rounding alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

OWN_ERROR = {"fp32": 1e-5, "bf16": 2e-3, "fp16": 1e-3}
"""Largest difference between scores of one network computed in this precision by different programs: fp32 and bf16 as
`verify --rescore` has it. Between fp16 and fp32 it was 5e-4 on 36 of the demo's drawings; OpenAI's code also normalises
embeddings and takes the cosine in float16."""


@dataclass(frozen=True)
class Agreement:
    """Scores here against those of a reference."""

    samples: int
    """Samples with a score in both."""
    only_here: int
    """With a score here, and none in the reference."""
    only_there: int
    largest: float
    """Difference, over samples with both; 0 where there are none."""
    mean: float
    rank_correlation: float
    """Spearman's, ties averaged; NaN for fewer than two different scores."""
    floor: float
    """Largest of the samples' floors: what rounding alone can make of a score of its magnitude."""
    beyond: int
    """Samples beyond their floors, or with a score on one side only."""

    @property
    def agrees(self) -> bool:
        """True if nothing differs by more than rounding."""
        return self.beyond == 0

    @property
    def one_sided(self) -> int:
        """Samples with a score on one side only."""
        return self.only_here + self.only_there

    def __str__(self) -> str:
        text = (
            f"largest difference {self.largest:.2g}, mean {self.mean:.2g}, rank correlation {self.rank_correlation:.4f} "
            f"over {self.samples:,} samples"
        )
        if self.only_here:
            text += f", {self.only_here:,} have a score here only"
        if self.only_there:
            text += f", {self.only_there:,} have a score in the reference only"
        return text


def agreement(
    here: np.ndarray,
    there: np.ndarray,
    *,
    is_half: bool,
    precision: Literal["fp32", "bf16", "fp16"],
) -> Agreement:
    """Compare scores, NaN for none; `is_half`: the reference's are numbers of float16."""
    has_here, has_there = np.isfinite(here), np.isfinite(there)
    both = has_here & has_there
    ours, theirs = here[both].astype(np.float64), there[both].astype(np.float64)
    difference = np.abs(ours - theirs)
    floor = floor_of(theirs, is_half=is_half, precision=precision)
    only_here, only_there = int((has_here & ~has_there).sum()), int((has_there & ~has_here).sum())
    return Agreement(
        samples=int(both.sum()),
        only_here=only_here,
        only_there=only_there,
        largest=float(difference.max(initial=0.0)),
        mean=float(difference.mean()) if len(difference) else 0.0,
        rank_correlation=spearman(ours, theirs),
        floor=float(floor.max(initial=0.0)),
        beyond=int((difference > floor).sum()) + only_here + only_there,
    )


def floor_of(
    scores: np.ndarray, *, is_half: bool, precision: Literal["fp32", "bf16", "fp16"]
) -> np.ndarray:
    """What a difference to each of the reference's scores must exceed to mean anything.

    Scores that are numbers of float16 are taken to be computed in it as well, as published ones are: beside the error of
    that, a score may be a step of float16's grid off, which is 2.4e-4 from 0.25 to 0.5.
    """
    if not is_half:
        return np.full(len(scores), OWN_ERROR[precision])
    step = np.spacing(np.abs(scores).astype(np.float16)).astype(np.float64)
    return max(OWN_ERROR[precision], OWN_ERROR["fp16"]) + step


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of ranks, those of equal values averaged; NaN where one has fewer than two different values."""
    if len(a) < 2:
        return float("nan")
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    if ranks_a.std() == 0 or ranks_b.std() == 0:
        return float("nan")
    return float(np.corrcoef(ranks_a, ranks_b)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
