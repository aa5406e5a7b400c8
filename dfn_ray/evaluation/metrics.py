"""The metrics of zero-shot classification and retrieval, as CLIP_benchmark 1.6 defines them.

All metrics are based on ranks: the number of candidates that are more similar than the correct one.
Equal similarities rank by position, so that results are reproducible. Similarities are computed in
blocks of `_BLOCK_VALUES`, never all at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dfn_ray.errors import InputError

RECALL_AT = (1, 5, 10)
"""DataComp's values of k (eval_utils/retr_eval.py)."""

_BLOCK_VALUES = 2**25
"""Similarities per block: 128 MiB of float32. COCO's 5,000 x 25,000 take four blocks."""

Metrics = dict[str, float]


def classification_metrics(
    image_ND: np.ndarray, class_CD: np.ndarray, label_N: np.ndarray
) -> Metrics:
    """Returns acc1, acc5 and mean_per_class_recall of the most similar class, 0 to 1.

    acc5 is NaN with fewer than 5 classes. mean_per_class_recall equals scikit-learn's
    balanced_accuracy_score: the mean over the classes that have images. Raises InputError if a
    label is not one of the classes.
    """
    classes = len(class_CD)
    if label_N.max() >= classes:
        raise InputError(
            f"label {label_N.max()} is too large for {classes} class names; labels count from 0"
        )
    rank_N = np.concatenate(
        [
            _candidates_before(image_ND[block] @ class_CD.T, label_N[block])
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
    """Returns image_retrieval_recall@k and text_retrieval_recall@k, 0 to 1, for k in RECALL_AT.

    The first is the fraction of texts whose image is among the k most similar images, the second
    the fraction of images with at least one of their texts among the k most similar texts.
    `image_of_text_M` is ascending and contains every image.
    """
    image_rank_M = np.concatenate(
        [
            _candidates_before(text_MD[block] @ image_ND.T, image_of_text_M[block])
            for block in _blocks(len(text_MD), len(image_ND))
        ]
    )
    first_text_N = np.searchsorted(image_of_text_M, np.arange(len(image_ND) + 1))
    text_rank_N = np.concatenate(
        [
            _candidates_before(
                score_BM, _best_positions(score_BM, first_text_N[block.start : block.stop + 1])
            )
            for block in _blocks(len(image_ND), len(text_MD))
            for score_BM in (image_ND[block] @ text_MD.T,)
        ]
    )
    metrics: Metrics = {}
    for k in RECALL_AT:
        metrics[f"image_retrieval_recall@{k}"] = float((image_rank_M < k).mean())
        metrics[f"text_retrieval_recall@{k}"] = float((text_rank_N < k).mean())
    return metrics


def _candidates_before(score_BK: np.ndarray, right_B: np.ndarray) -> np.ndarray:
    """The number of the K candidates that rank before the correct one, for each row."""
    right_score_B1 = np.take_along_axis(score_BK, right_B[:, None], axis=1)
    before_BK = np.arange(score_BK.shape[1]) < right_B[:, None]
    higher_B = np.count_nonzero(score_BK > right_score_B1, axis=1)
    return higher_B + np.count_nonzero((score_BK == right_score_B1) & before_BK, axis=1)


def _best_positions(score_BM: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The position of the most similar of each row's own texts, from its bound to the next."""
    return np.array(
        [
            start + int(score_M[start:stop].argmax())
            for score_M, start, stop in zip(score_BM, bounds[:-1], bounds[1:], strict=True)
        ]
    )


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows for blocks of at most `_BLOCK_VALUES` similarities, or of one row."""
    size = max(1, _BLOCK_VALUES // max(columns, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
