"""The metrics of zero-shot classification and retrieval, as CLIP_benchmark 1.6 defines them.

Everything is a rank: how many candidates are more similar than the right one. Equal similarities rank by position,
first come first, so that results repeat. Similarities are made in blocks of `_BLOCK_VALUES` and never all at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dfn_ray.errors import InputError

RECALL_AT = (1, 5, 10)
"""DataComp's k (eval_utils/retr_eval.py)."""

_BLOCK_VALUES = 2**25
"""Similarities at a time: 128 MiB of float32. COCO's 5,000 x 25,000 take four blocks."""

Metrics = dict[str, float]


def classification_metrics(
    image_ND: np.ndarray, class_CD: np.ndarray, label_N: np.ndarray
) -> Metrics:
    """acc1, acc5 and mean_per_class_recall of the most similar class, 0 to 1.

    acc5 is NaN with fewer than 5 classes. mean_per_class_recall is scikit-learn's balanced_accuracy_score: the mean
    over the classes that have images. Raises InputError when a label is not one of the classes.
    """
    classes = len(class_CD)
    if label_N.max() >= classes:
        raise InputError(
            f"a label is {label_N.max()}, but there are {classes} class names (labels count from 0)"
        )
    rank_N = np.concatenate(
        [
            _ranks(image_ND[block] @ class_CD.T, label_N[block])
            for block in _blocks(len(image_ND), classes)
        ]
    )
    right_N = rank_N == 0
    images_C = np.bincount(label_N, minlength=classes)
    right_C = np.bincount(label_N, weights=right_N, minlength=classes)
    present_C = images_C > 0
    return {
        "acc1": float(right_N.mean()),
        "acc5": float((rank_N < 5).mean()) if classes >= 5 else float("nan"),
        "mean_per_class_recall": float((right_C[present_C] / images_C[present_C]).mean()),
    }


def retrieval_metrics(
    image_ND: np.ndarray, text_MD: np.ndarray, image_of_text_M: np.ndarray
) -> Metrics:
    """image_retrieval_recall@k over texts and text_retrieval_recall@k over images, 0 to 1, for k in RECALL_AT.

    A text finds its image among the k most similar images; an image finds at least one of its texts among the k most
    similar texts. `image_of_text_M` ascends and names every image.
    """
    image_rank_M = np.concatenate(
        [
            _ranks(text_MD[block] @ image_ND.T, image_of_text_M[block])
            for block in _blocks(len(text_MD), len(image_ND))
        ]
    )
    first_text_N = np.searchsorted(image_of_text_M, np.arange(len(image_ND) + 1))
    text_rank_N = np.concatenate(
        [
            _ranks(score_BM, _best_positions(score_BM, first_text_N[block.start : block.stop + 1]))
            for block in _blocks(len(image_ND), len(text_MD))
            for score_BM in (image_ND[block] @ text_MD.T,)
        ]
    )
    metrics: Metrics = {}
    for k in RECALL_AT:
        metrics[f"image_retrieval_recall@{k}"] = float((image_rank_M < k).mean())
        metrics[f"text_retrieval_recall@{k}"] = float((text_rank_N < k).mean())
    return metrics


def _ranks(score_BK: np.ndarray, right_B: np.ndarray) -> np.ndarray:
    """How many of the K candidates come before the right one, for each row."""
    right_score_B1 = np.take_along_axis(score_BK, right_B[:, None], axis=1)
    before_BK = np.arange(score_BK.shape[1]) < right_B[:, None]
    higher_B = np.count_nonzero(score_BK > right_score_B1, axis=1)
    return higher_B + np.count_nonzero((score_BK == right_score_B1) & before_BK, axis=1)


def _best_positions(score_BM: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The most similar of each row's own texts, which are those from its bound to the next."""
    return np.array(
        [
            start + int(score_M[start:stop].argmax())
            for score_M, start, stop in zip(score_BM, bounds[:-1], bounds[1:], strict=True)
        ]
    )


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Cut rows so that a block of similarities has at most `_BLOCK_VALUES`, or one row."""
    size = max(1, _BLOCK_VALUES // max(columns, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
