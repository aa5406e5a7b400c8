"""The metrics against numpy and torch on the full similarity matrix, as in CLIP_benchmark 1.6."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dfn_ray.errors import InputError
from dfn_ray.evaluation import metrics as metrics_module
from dfn_ray.evaluation.metrics import classification_metrics, retrieval_metrics


def unit(rng: np.random.Generator, count: int, width: int = 16) -> np.ndarray:
    values = rng.normal(size=(count, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def topk_recall(scores: np.ndarray, positive: np.ndarray, k: int) -> float:
    """CLIP_benchmark's recall_at_k > 0, averaged."""
    chosen = torch.topk(torch.from_numpy(scores), k, dim=1)[1].numpy()
    return float(np.take_along_axis(positive, chosen, axis=1).any(axis=1).mean())


@pytest.fixture(params=[2**25, 64, 1], ids=["one block", "blocks", "a row a block"])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(metrics_module, "_BLOCK_VALUES", request.param)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("classes", [2, 4, 5, 12])
def test_accuracy_and_per_class_recall_are_those_of_the_whole_matrix(classes):
    rng = np.random.default_rng(classes)
    image_ND, class_CD = unit(rng, 90), unit(rng, classes)
    label_N = rng.integers(0, classes - 1, 90)  # the last class has no image
    scores = image_ND @ class_CD.T
    predicted = scores.argmax(axis=1)
    given = classification_metrics(image_ND, class_CD, label_N)
    one_hot = np.eye(classes, dtype=bool)[label_N]
    assert given["acc1"] == pytest.approx((predicted == label_N).mean())
    if classes < 5:
        assert math.isnan(given["acc5"])
    else:
        assert given["acc5"] == pytest.approx(topk_recall(scores, one_hot, 5))
        assert given["acc5"] > given["acc1"]
    assert given["mean_per_class_recall"] == pytest.approx(
        np.mean([(predicted[label_N == c] == c).mean() for c in np.unique(label_N)])
    )


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("captions", [[1] * 40, [5] * 40, [1, 2, 7, 3] * 10])
def test_recall_is_that_of_the_whole_matrix_with_one_or_several_captions(captions):
    rng = np.random.default_rng(len(captions))
    image_of_text_M = np.repeat(np.arange(40), captions)
    image_ND = unit(rng, 40)
    text_MD = image_ND[image_of_text_M] + 1.5 * unit(rng, len(image_of_text_M))
    scores = text_MD @ image_ND.T
    positive = np.zeros_like(scores, dtype=bool)
    positive[np.arange(len(scores)), image_of_text_M] = True
    given = retrieval_metrics(image_ND, text_MD, image_of_text_M)
    expected = {}
    for k in (1, 5, 10):
        expected[f"image_retrieval_recall@{k}"] = topk_recall(scores, positive, k)
        expected[f"text_retrieval_recall@{k}"] = topk_recall(scores.T, positive.T, k)
    assert given == pytest.approx(expected)
    assert 0 < given["image_retrieval_recall@1"] < 1


def test_equal_similarities_rank_by_position_first_come_first():
    image_ND = np.ones((4, 2), np.float32)
    six_classes = np.ones((6, 2), np.float32)
    given = classification_metrics(image_ND, six_classes, np.array([0, 1, 4, 5]))
    assert given["acc1"] == 0.25  # as argmax has it
    assert given["acc5"] == 0.75
    texts = retrieval_metrics(image_ND, np.ones((8, 2), np.float32), np.repeat(np.arange(4), 2))
    assert texts["image_retrieval_recall@1"] == 0.25
    assert texts["text_retrieval_recall@1"] == 0.25
    assert texts["text_retrieval_recall@5"] == 0.75


def test_fewer_candidates_than_k_always_hold_the_right_one():
    rng = np.random.default_rng(0)
    given = retrieval_metrics(unit(rng, 3), unit(rng, 3), np.arange(3))
    assert given["image_retrieval_recall@5"] == given["text_retrieval_recall@10"] == 1.0


def test_a_label_beyond_the_class_names_is_told():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="label 3 is too large for 3 class names"):
        classification_metrics(unit(rng, 2), unit(rng, 3), np.array([0, 3]))


def test_the_whole_similarity_matrix_is_never_made(monkeypatch):
    monkeypatch.setattr(metrics_module, "_BLOCK_VALUES", 1000)
    largest = 0
    ranks = metrics_module._candidates_before

    def watched(score_BK, right_B):
        nonlocal largest
        largest = max(largest, score_BK.size)
        return ranks(score_BK, right_B)

    monkeypatch.setattr(metrics_module, "_candidates_before", watched)
    rng = np.random.default_rng(0)
    retrieval_metrics(unit(rng, 100), unit(rng, 500), np.repeat(np.arange(100), 5))
    assert 0 < largest <= 1000
