"""Distance between two lists of scores, and the distance that rounding alone can cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dfn_ray.report.mean_ranks import mean_ranks

OWN_ERROR = {"fp32": 1e-5, "bf16": 2e-3, "fp16": 1e-3}
"""Largest difference between scores that different programs compute with one network in this
precision. fp32 and bf16 are the limits of `verify --rescore`. Between fp16 and fp32 it was 5e-4 on
36 of the demo's drawings; OpenAI's code also normalizes embeddings and computes the cosine in
float16."""


@dataclass(frozen=True)
class Agreement:
    """The recipe's scores against those of a reference."""

    samples: int
    """Samples with a score on both sides."""
    only_recipe: int
    """Samples with a score by the recipe only."""
    only_reference: int
    """Samples with a score in the reference only."""
    largest: float
    """Largest difference over samples with both scores; 0 without any."""
    mean: float
    rank_correlation: float
    """Spearman's, ties averaged; NaN for fewer than two distinct scores."""
    floor: float
    """Largest of the samples' floors: the difference that rounding alone can cause at a score's
    magnitude."""
    beyond: int
    """Samples that differ by more than their floor, or have a score on one side only."""

    @property
    def agrees(self) -> bool:
        """True if nothing differs by more than rounding."""
        return self.beyond == 0

    @property
    def one_sided(self) -> int:
        """Samples with a score on one side only."""
        return self.only_recipe + self.only_reference

    def __str__(self) -> str:
        text = (
            f"largest difference {self.largest:.2g}, mean {self.mean:.2g}, "
            f"rank correlation {self.rank_correlation:.4f} over {self.samples:,} samples"
        )
        if self.only_recipe:
            text += f", {self.only_recipe:,} have a score only with the recipe"
        if self.only_reference:
            text += f", {self.only_reference:,} have a score only in the reference"
        return text


def agreement(
    scores: np.ndarray,
    reference: np.ndarray,
    *,
    is_half: bool,
    precision: Literal["fp32", "bf16", "fp16"],
) -> Agreement:
    """Compares scores, NaN for none. `is_half`: the reference's scores are float16 values."""
    has_score, has_reference = np.isfinite(scores), np.isfinite(reference)
    both = has_score & has_reference
    ours, theirs = scores[both].astype(np.float64), reference[both].astype(np.float64)
    difference = np.abs(ours - theirs)
    floor = floor_of(theirs, is_half=is_half, precision=precision)
    only_recipe = int((has_score & ~has_reference).sum())
    only_reference = int((has_reference & ~has_score).sum())
    return Agreement(
        samples=int(both.sum()),
        only_recipe=only_recipe,
        only_reference=only_reference,
        largest=float(difference.max(initial=0.0)),
        mean=float(difference.mean()) if len(difference) else 0.0,
        rank_correlation=spearman(ours, theirs),
        floor=float(floor.max(initial=0.0)),
        beyond=int((difference > floor).sum()) + only_recipe + only_reference,
    )


def floor_of(
    scores: np.ndarray, *, is_half: bool, precision: Literal["fp32", "bf16", "fp16"]
) -> np.ndarray:
    """Difference from each reference score that rounding alone can cause.

    float16 values are assumed to be computed in float16 too, as published scores are: in addition
    to the error of that computation, a score may be off by one float16 step, 2.4e-4 from 0.25 to
    0.5.
    """
    if not is_half:
        return np.full(len(scores), OWN_ERROR[precision])
    step = np.spacing(np.abs(scores).astype(np.float16)).astype(np.float64)
    return max(OWN_ERROR[precision], OWN_ERROR["fp16"]) + step


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, ties averaged; NaN if either side has fewer than two distinct values."""
    if len(a) < 2:
        return float("nan")
    ranks_a, ranks_b = mean_ranks(a), mean_ranks(b)
    if ranks_a.std() == 0 or ranks_b.std() == 0:
        return float("nan")
    return float(np.corrcoef(ranks_a, ranks_b)[0, 1])
