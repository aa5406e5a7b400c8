"""Several captions per sample: those encoded, those that count, and their combined score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.config import Captions, Rules
from dfn_ray.preparing.rules import reject_caption
from dfn_ray.schema import Reason

COUNTS = "counts"
"""Name of the inputs column with the mask of captions that count for the score: list of booleans,
one per encoded caption."""


def has_several_captions(samples: pa.Table) -> bool:
    """True for samples with lists of captions."""
    return pa.types.is_large_list(samples.schema.field("text").type)


def encoded_captions(captions: Sequence[list[str]], how: Captions) -> list[list[str]]:
    """The captions of each sample that are encoded.

    All of them, unless only the first one counts and scores are not kept.
    """
    first = how.score == "first" and not how.keep_scores
    return [own[:1] if first else own for own in captions]


def reject_captions(captions: Sequence[str], rules: Rules, how: Captions) -> Reason | None:
    """The reason of the first caption if no caption passes the rules, else None."""
    reasons = [
        reject_caption(text, rules) for text in captions[: 1 if how.score == "first" else None]
    ]
    return None if None in reasons else reasons[0]


def counting_captions(captions: Sequence[str], rules: Rules, how: Captions) -> list[bool]:
    """Mask of the encoded captions that count: those that pass the rules; `first`: the first.

    For samples that are not rejected.
    """
    return [
        (at == 0 or how.score != "first") and reject_caption(text, rules) is None
        for at, text in enumerate(captions)
    ]


def nested(values: pa.Array, lengths: Sequence[int] | np.ndarray) -> pa.LargeListArray:
    """The values as consecutive lists of the given lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)


def flattened(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
    """The values and lengths of a column of `nested`."""
    lengths = pc.list_value_length(column).to_numpy()
    return pc.list_flatten(column), lengths


def reduce_scores(
    score_M: np.ndarray,
    text_MD: np.ndarray | None,
    length_N: np.ndarray,
    is_included_M: np.ndarray,
    how: Captions,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The score of each sample, float32 (N,), and its text embedding, float16 (N, D).

    Computed from the captions that count. `best`: score and embedding of the best one; `mean`: mean
    score, and mean of the embeddings, whose dot product with the image embedding is the mean score.
    A NaN among them yields NaN.
    """
    last_N = np.cumsum(length_N)
    of_N = [
        end - length + np.flatnonzero(is_included_M[end - length : end])
        for end, length in zip(last_N, length_N, strict=True)
    ]
    if how.score == "best":
        of_N = [own[[np.argmax(score_M[own])]] for own in of_N]
    score_N = np.array([score_M[own].mean(dtype=np.float64) for own in of_N], np.float32)
    if text_MD is None:
        return score_N, None
    means = [text_MD[own].mean(axis=0, dtype=np.float32) for own in of_N]
    return score_N, np.array(means, np.float16).reshape(len(of_N), text_MD.shape[1])
