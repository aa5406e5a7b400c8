"""Scores of several captions, against plain numpy on a real tiny network."""

from __future__ import annotations

import io
import math
from typing import Any, Literal

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from PIL import Image

from dfn_ray.config import Captions, Decode, Network, Pool, Recipe, Rules, Scorers
from dfn_ray.filtering.scoring.bounds import EVERYTHING
from dfn_ray.filtering.scoring.fingerprint import settings_fingerprint
from dfn_ray.filtering.scoring.scorer import Scorer, plan_inputs
from dfn_ray.filtering.verifying.row_sums import column_words
from dfn_ray.network.packed import pack_network
from dfn_ray.on_ray.cells import Cell, pack, unpack
from dfn_ray.pool import Shard, iter_chunks
from dfn_ray.preparing.prepare import prepare
from dfn_ray.preparing.several_captions import reduce_scores
from dfn_ray.testing.random_networks import save_tiny_network
from dfn_ray.testing.sample_pools import TarBuilder, photo

CAPTIONS = [
    ["a cat on a mat", "two", "a cat and a dog in the rain"],
    ["one alone here"],
    ["no", "nor this"],
    ["so few", "the only long one", "words"],
    [
        "same words again", "same words again",
        "another text entirely, and a longer one than the others are",
    ],
    ["no image here", "none"],
]  # fmt: skip
RULES, NO_RULES = Rules(min_caption_words=3), Rules()
# Cells from the object store are not writable; nothing writes to them.
pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_network(tmp_path_factory.mktemp("network") / "tiny", seed=3)


@pytest.fixture(scope="module")
def cosines(folder) -> list[list[float]]:
    """Scores of every caption with its image, by open_clip itself; none for a broken image."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    found = []
    with torch.no_grad():
        for number, captions in enumerate(CAPTIONS[:-1]):
            pixels: Any = transform(Image.open(io.BytesIO(photo(number))))
            image = model.encode_image(pixels[None], normalize=True)
            texts = [model.encode_text(tokenize([text]), normalize=True) for text in captions]
            found.append([float((image * text).sum()) for text in texts])
    return found


def scored(
    tmp_path, folder, rules: Rules = NO_RULES, *, one: bool = False, **settings: Any
) -> pa.Table:
    tar = TarBuilder()
    for number, captions in enumerate(CAPTIONS):
        image = photo(number) if number < len(CAPTIONS) - 1 else b"<html>"
        tar.sample(f"{number}", image=image, caption=captions[0] if one else "\n".join(captions))
    (tmp_path / "0.tar").write_bytes(tar.getvalue())
    pool = Pool(uri=(str(tmp_path / "0.tar"),), caption="text" if one else "lines")
    network = pack_network(Network(model=f"local-dir:{folder}"))
    scorers = Scorers(threads=1, keep_embeddings=settings.pop("keep_embeddings", False))
    recipe = Recipe(
        run_uri="x", pool=pool, networks=(Network(model=f"local-dir:{folder}"),), rules=rules,
        captions=Captions(**settings), scorers=scorers, decode=Decode(),
    )  # fmt: skip
    preparation, inputs = plan_inputs([network], recipe)
    scorer = Scorer([network], inputs, scorers, "dfn", EVERYTHING, captions=recipe.captions)
    shard = Shard(pool.uri[0], "0.tar", (tmp_path / "0.tar").stat().st_size)
    ((chunk, samples),) = iter_chunks(shard, pool)
    cell = prepare(Cell(chunk=chunk, samples=samples), preparation=preparation)
    return scorer(next(unpack(pack([cell])))).samples


def expected(cosines: list[list[float]], how: str, passes: list[list[bool]]) -> list[float | None]:
    """The reduction by plain numpy."""
    scores: list[float | None] = []
    for own, passed in zip(cosines, passes, strict=True):
        most = 1 if how == "first" else None
        counted = np.array(own[:most])[np.array(passed[:most])]
        if len(counted) == 0:
            scores.append(None)
        else:
            scores.append(
                float({"first": counted[0], "best": counted.max(), "mean": counted.mean()}[how])
            )
    return [*scores, None]


@pytest.mark.parametrize("ruled", [False, True])
@pytest.mark.parametrize("how", ["first", "best", "mean"])
def test_a_sample_has_the_stated_reduction_of_the_captions_that_count(
    tmp_path, folder, cosines, how: Literal["first", "best", "mean"], ruled
):
    samples = scored(tmp_path, folder, RULES if ruled else NO_RULES, score=how)
    passes = [[not ruled or len(text.split()) >= 3 for text in own] for own in CAPTIONS[:-1]]
    due = expected(cosines, how, passes)
    found = samples["score_dfn"].to_pylist()
    assert [score is None for score in found] == [score is None for score in due]
    for score, other in zip(found, due, strict=True):
        assert score is None or score == pytest.approx(other, abs=1e-6)
    rejected = ["caption_words" if score is None else None for score in due[:-1]]
    last = (
        "caption_words"
        if ruled and how == "first" and len(CAPTIONS[-1][0].split()) < 3
        else "not_an_image"
    )
    assert samples["reason"].to_pylist() == [*rejected, last]
    assert "caption_scores_dfn" not in samples.column_names
    # All captions travel, whichever count.
    kept = [text for text in samples["text"].to_pylist() if text is not None]
    assert kept == [own for own, score in zip(CAPTIONS, due, strict=True) if score is not None]


@pytest.mark.parametrize("how", ["first", "best", "mean"])
def test_the_score_of_each_caption_is_kept_if_asked(tmp_path, folder, cosines, how):
    kept = scored(tmp_path, folder, RULES, score=how, keep_scores=True)
    plain = scored(tmp_path, folder, RULES, score=how)
    assert kept["reason"].to_pylist() == plain["reason"].to_pylist()
    assert kept.schema.field("caption_scores_dfn").type == pa.list_(pa.float32())
    for number, scores in enumerate(kept["caption_scores_dfn"].to_pylist()):
        if kept["status"][number].as_py() == "scored":
            assert scores == pytest.approx(cosines[number], abs=1e-6)
        else:
            assert scores is None


def test_the_first_caption_alone_scores_as_a_pool_of_first_captions_does(tmp_path, folder):
    first = scored(tmp_path, folder, RULES, score="first")
    one = scored(tmp_path, folder, RULES, one=True)
    for name in ("score_dfn", "status", "reason", "uid", "image"):
        assert first[name].equals(one[name]), name
    assert one.schema.field("text").type == pa.large_string()
    assert first.schema.names == one.schema.names


@pytest.mark.parametrize("how", ["first", "best", "mean"])
def test_kept_embeddings_give_the_score(tmp_path, folder, how):
    samples = scored(tmp_path, folder, score=how, keep_embeddings=True).slice(0, len(CAPTIONS) - 1)
    image, text = (
        np.array(samples[f"{side}_embedding_dfn"].to_pylist()) for side in ("image", "text")
    )
    np.testing.assert_allclose(
        (image * text).sum(axis=1), samples["score_dfn"].to_numpy(), atol=2e-3
    )


def test_nan_of_a_caption_that_counts_is_the_score_and_of_another_is_not():
    score, counts = (
        np.array([0.5, math.nan, 0.25, 0.75], np.float32),
        np.array([True, True, False, True]),
    )
    for how in ("best", "mean"):
        found, none = reduce_scores(score, None, np.array([2, 2]), counts, Captions(score=how))
        assert none is None
        assert math.isnan(found[0])
        assert found[1] == 0.75
    counts[1], score[2] = False, math.nan
    for how in ("best", "mean"):
        assert reduce_scores(score, None, np.array([2, 2]), counts, Captions(score=how))[
            0
        ].tolist() == [
            0.5,
            0.75,
        ]
    assert (
        len(reduce_scores(score[:0], None, np.array([], np.int64), counts[:0], Captions())[0]) == 0
    )


def test_the_setting_stands_in_the_fingerprint_where_it_changes_scores_and_only_there():
    def fingerprint(caption: Any, **captions: Any) -> dict[str, Any]:
        network = Network(model="ViT-B-32", pretrained="openai")
        pool = Pool(uri=("x",), caption=caption)
        return settings_fingerprint(
            Recipe(run_uri="r", pool=pool, networks=(network,), captions=Captions(**captions))
        )

    assert fingerprint("text") == fingerprint("text", score="best", keep_scores=True)
    for caption in ("lines", "list"):
        assert fingerprint(caption) != fingerprint(caption, score="best")
        assert fingerprint(caption) != fingerprint(caption, keep_scores=True)


def test_lists_of_scores_have_the_same_words_for_the_same_values_only():
    lists = [
        [0.5, 0.25],
        [0.25, 0.5],
        [0.5],
        [0.5, 0.25, 0.0],
        [],
        None,
        [None],
        [0.5, None],
        [0.5, 0.25],
    ]
    whole = pa.chunked_array(
        [pa.array(lists[:4], pa.list_(pa.float32())), pa.array(lists[4:], pa.list_(pa.float32()))]
    )
    words = column_words(whole)
    assert words[0] == words[-1]
    assert len(set(words.tolist())) == len(lists) - 1
    assert column_words(whole.slice(3)).tolist() == words[3:].tolist()
