"""The caption that a visit of a sample with several is trained on: each once in as many visits as there are captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def draw_caption(captions: Sequence[str], uid: str, visit: int, seed: Sequence[int]) -> str:
    """The caption of visit number `visit`, from 0: that place of a permutation of the captions, over and over.

    The permutation is the sample's own, by its uid, and the same in every pass, wherever and whenever it is read.
    """
    if len(captions) == 1:
        return captions[0]
    order = np.random.default_rng((*seed, int(uid, 16))).permutation(len(captions))
    return captions[int(order[visit % len(captions)])]


def visit_numbers(rows: np.ndarray, turn: int) -> np.ndarray:
    """Which visit of its sample each row is, from 0, in pass number `turn`; `rows` are sorted, copies side by side.

    A pass has the same copies of a sample as every other one.
    """
    first = np.searchsorted(rows, rows, "left")
    copies = np.searchsorted(rows, rows, "right") - first
    return turn * copies + np.arange(len(rows)) - first
