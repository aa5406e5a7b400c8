"""Pairs at hand, scored without a run."""

from __future__ import annotations

import io

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

import dfn_ray
from dfn_ray.testing.sample_pools import photo

CAPTIONS = ["a cat asleep", "two dogs &amp; a ball", "ein Haus", "a cat asleep"] * 2


@pytest.fixture(scope="module")
def scorer(network):
    return dfn_ray.load_network(f"local-dir:{network}")


def test_scores_are_those_of_open_clip(scorer, network):
    photos = [photo(number) for number in range(len(CAPTIONS))]
    table = scorer.score(photos, CAPTIONS)

    location = f"local-dir:{network}"
    model, _, transform = open_clip.create_model_and_transforms(location)
    model.eval()
    with torch.inference_mode():
        images = torch.stack(
            [transform(Image.open(io.BytesIO(data)).convert("RGB")) for data in photos]
        )
        image_ND = model.encode_image(images, normalize=True)
        text_ND = model.encode_text(open_clip.get_tokenizer(location)(CAPTIONS), normalize=True)
        expected = (image_ND * text_ND).sum(dim=1).numpy()
    np.testing.assert_allclose(table["score"].to_numpy(), expected, atol=1e-5)
    assert table["status"].to_pylist() == ["scored"] * len(photos)
    assert table["width"].to_pylist() == [40] * len(photos)
    assert table["height"].to_pylist() == [36] * len(photos)


def test_each_pair_that_cannot_be_scored_has_its_reason_and_costs_no_other(scorer):
    images = [
        photo(0),
        b"",
        b"<html>",
        photo(0)[:200],
        photo(0),
        photo(0),
        photo(0),
        photo(0),
        photo(0),
    ]
    captions = ["a", "b", "c", "d", None, " \n", "a", "\u200b\ufeff", "half \ud800"]
    table = scorer.score(images, captions)
    assert table["reason"].to_pylist() == [
        None,
        "empty_image",
        "not_an_image",
        "decode_error",
        "missing_caption",
        "empty_caption",
        None,
        "empty_caption",
        "caption_not_utf8",
    ]
    scores = table["score"].to_pylist()
    assert [score is None for score in scores] == [
        r is not None for r in table["reason"].to_pylist()
    ]
    assert scores[0] == pytest.approx(scores[6], abs=1e-6)


def test_images_are_read_from_paths_and_more_than_a_chunk_keep_their_order(scorer, tmp_path):
    count = 300
    paths = []
    for number in range(count):
        (tmp_path / f"{number}.jpg").write_bytes(photo(number % 7))
        paths.append(tmp_path / f"{number}.jpg")
    scores = scorer.score(paths, ["a cat"] * count)["score"].to_numpy()
    assert len(scores) == count
    for kind in range(7):
        np.testing.assert_allclose(scores[kind::7], scores[kind], atol=1e-6)
    assert len({round(float(score), 6) for score in scores[:7]}) == 7
    assert scorer.score([], [])["score"].to_pylist() == []


def test_images_without_captions_are_refused(scorer, tmp_path):
    with pytest.raises(dfn_ray.InputError, match="2 and 1"):
        scorer.score([photo(0), photo(1)], ["a"])
    with pytest.raises(dfn_ray.StorageError, match=r"absent\.jpg"):
        scorer.score([tmp_path / "absent.jpg"], ["a"])
    with pytest.raises(dfn_ray.InputError, match="absent"):
        dfn_ray.load_network(f"local-dir:{tmp_path}/absent")
