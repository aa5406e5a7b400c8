"""The caption drawn at a visit of a sample with several: n visits use each of n captions once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def draw_caption(captions: Sequence[str], uid: str, visit: int, seed: Sequence[int]) -> str:
    """Returns the caption of visit number `visit`, from 0, in a repeated permutation.

    The permutation depends on the sample's uid and the seed only, so it is the same in every pass.
    """
    if len(captions) == 1:
        return captions[0]
    order = np.random.default_rng((*seed, int(uid, 16))).permutation(len(captions))
    return captions[int(order[visit % len(captions)])]


def visit_numbers(rows: np.ndarray, turn: int) -> np.ndarray:
    """Returns the number of each row's visit to its sample, from 0, in pass number `turn`.

    `rows` are sorted and may contain copies. Every pass contains the same copies of a sample.
    """
    first = np.searchsorted(rows, rows, "left")
    copies = np.searchsorted(rows, rows, "right") - first
    return turn * copies + np.arange(len(rows)) - first
