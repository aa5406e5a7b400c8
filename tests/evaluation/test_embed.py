"""The embedder by itself, without Ray."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from dfn_ray.config import Decode, Network, Rules, Scorers
from dfn_ray.console.progress import Progress
from dfn_ray.evaluation.embedder import (
    IMAGE,
    LABEL,
    TEXTS,
    Embedder,
    with_captions,
    with_labels,
)
from dfn_ray.evaluation.gather import gather
from dfn_ray.network.packed import PackedNetwork, pack_network
from dfn_ray.on_ray.cells import Cell, column_array
from dfn_ray.preparing.prepare import Preparation
from dfn_ray.schema import SAMPLE_SCHEMA, SEVERAL_CAPTIONS_SCHEMA, Chunk
from dfn_ray.testing.sample_pools import photo
from tests.evaluation.conftest import captions_of, label_of


@pytest.fixture
def packed(network) -> PackedNetwork:
    return pack_network(Network(model=f"local-dir:{network}"))


def cell_of(
    numbers: list[int], texts: Sequence[str | list[str]], broken: frozenset[int] = frozenset()
) -> Cell:
    rows = [
        ("0" * 32, n, str(n), b"<html>" if n in broken else photo(n), text, None, None, None)
        for n, text in zip(numbers, texts, strict=True)
    ]
    columns = zip(*rows, strict=True)
    schema = SAMPLE_SCHEMA if isinstance(texts[0], str) else SEVERAL_CAPTIONS_SCHEMA
    samples = pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )
    chunk = Chunk(shard="s", first_row=numbers[0], rows=len(numbers), last=False)
    return Cell(chunk=chunk, samples=samples)


def preparation(packed: PackedNetwork) -> Preparation:
    return Preparation(Rules(), Decode(), (packed.transform,), ())


def test_an_embedded_image_has_open_clips_embedding_and_its_own_label(packed, reference):
    labels = [str(label_of(n)) for n in range(6)]
    cell = cell_of(list(range(6)), labels, broken=frozenset({0, 3}))
    done = Embedder(packed, Scorers(threads=1))(with_labels(cell, preparation=preparation(packed)))
    assert done.inputs is not None
    assert done.inputs[LABEL].to_pylist() == [label_of(n) for n in (1, 2, 4, 5)]
    image_ND = column_array(done.inputs[IMAGE], np.float32, (-1,))
    np.testing.assert_allclose(image_ND, reference.images()[[1, 2, 4, 5]], atol=1e-5)
    assert done.samples["reason"].to_pylist() == [
        "not_an_image" if n in (0, 3) else None for n in range(6)
    ]


def test_every_caption_is_embedded_with_its_image(packed, reference):
    texts = [captions_of(n) for n in range(4)]
    done = Embedder(packed, Scorers(threads=1))(
        with_captions(cell_of(list(range(4)), texts), preparation=preparation(packed))
    )
    assert done.inputs is not None
    for number, value in enumerate(done.inputs[TEXTS]):
        text_MD = np.frombuffer(value.as_buffer(), np.float32).reshape(-1, 16)
        np.testing.assert_allclose(text_MD, reference.texts(captions_of(number)), atol=1e-5)


@pytest.mark.parametrize("broken", ["visual.proj", "text_projection"])
def test_a_sample_whose_embedding_is_not_finite_fails(packed, broken):
    packed.state[broken][:] = np.nan
    done = Embedder(packed, Scorers(threads=1))(
        with_captions(cell_of([0, 1], [["a"], ["b", "c"]]), preparation=preparation(packed))
    )
    assert done.inputs is not None
    assert done.inputs.num_rows == 0
    assert done.samples["reason"].to_pylist() == ["nan_score"] * 2


def test_a_set_is_gathered_in_its_order_with_what_failed(packed, reference):
    embedder = Embedder(packed, Scorers(threads=1))
    cells = [
        embedder(with_captions(cell_of(numbers, texts, broken), preparation=preparation(packed)))
        for numbers, texts, broken in (
            ([4, 5], [["e"], ["f", "g"]], frozenset({4})),
            ([2, 3], [["x"], ["y"]], frozenset({2, 3})),
            ([0, 1], [["a", "b"], ["c"]], frozenset()),
        )
    ]
    gathered = gather(cells, Progress(0))
    np.testing.assert_allclose(gathered.image_ND, reference.images()[[0, 1, 5]], atol=1e-5)
    assert gathered.image_of_text_M is not None
    assert gathered.image_of_text_M.tolist() == [0, 0, 1, 2, 2]
    np.testing.assert_allclose(
        gathered.text_MD, reference.texts(["a", "b", "c", "f", "g"]), atol=1e-5
    )
    assert gathered.counts == {"scored": 3, "failed/not_an_image": 3}
    assert gathered.label_N is None
