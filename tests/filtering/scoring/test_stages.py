"""The stages alone, without Ray: rules, marking, scoring, bounds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfn_ray.config import Network, Rules, Scorers, Select
from dfn_ray.filtering.scoring import scorer as scorer_module
from dfn_ray.filtering.scoring.bounds import EVERYTHING, NOTHING, Bounds
from dfn_ray.filtering.scoring.calibrate import bootstrap_bounds
from dfn_ray.filtering.scoring.scorer import Scorer
from dfn_ray.filtering.selecting.select_run import target_count
from dfn_ray.network.packed import pack_network
from dfn_ray.on_ray.cells import Cell, array_column, column_array, pack, unpack
from dfn_ray.preparing.prepare import NetworkInputs
from dfn_ray.preparing.rules import SizeRule, reject_caption, reject_size
from dfn_ray.preparing.statuses import with_bytes_of
from dfn_ray.schema import SAMPLE_SCHEMA, Chunk, Reason

TEXTS = pa.large_list(pa.large_string())
BASIC = Rules(min_caption_words=3, min_caption_chars=6, min_image_side=200, max_aspect_ratio=3.0)


@given(st.text(max_size=12))
def test_the_caption_rule_is_datacomps(text):
    # apply_filter.py: keep len(text.split()) > 2 and len(text) > 5
    assert (reject_caption(text, BASIC) is None) == (len(text.split()) > 2 and len(text) > 5)


@given(st.integers(1, 900), st.integers(1, 900))
def test_the_size_rule_is_datacomps(width, height):
    # apply_filter.py: keep min(w, h) >= 200 and max(w, h) / min(w, h) <= 3.0
    small, large = sorted((width, height))
    assert (reject_size(width, height, BASIC) is None) == (small >= 200 and large / small <= 3.0)


def test_the_size_rule_judges_the_original_size_where_the_metadata_has_it():
    rule = SizeRule(
        BASIC,
        [
            '{"original_width": 640, "original_height": 480}',
            None,
            '{"original_width": null, "original_height": 3}',
        ],
    )
    assert rule(0, 64, 48) is None
    assert rule(1, 64, 48) is Reason.IMAGE_SIDE
    assert rule(2, 64, 48) is Reason.IMAGE_SIDE


@pytest.mark.parametrize(
    ("fraction", "n", "k"), [(0.29, 100, 29), (0.15, 1_000_003, 150_000), (0.1, 9, 0), (1.0, 7, 7)]
)
def test_a_fraction_keeps_the_floor_of_what_was_written(fraction, n, k):
    assert target_count(Select(keep_fraction=fraction), n) == k


def cell(rows: int, inputs: pa.Table | None = None) -> Cell:
    samples = pa.table(
        {
            "uid": [f"{n:032x}" for n in range(rows)],
            "row": pa.array(range(rows), pa.int64()),
            "key": [str(n) for n in range(rows)],
            "image": pa.array([b"bytes"] * rows, pa.large_binary()),
            "text": pa.array(["text"] * rows, pa.large_string()),
            "metadata": pa.array([None] * rows, pa.large_string()),
            "status": pa.array([None] * rows, pa.string()),
            "reason": pa.array([None] * rows, pa.string()),
        },
        schema=SAMPLE_SCHEMA,
    )
    return Cell(
        chunk=Chunk(shard="s", first_row=0, rows=rows, last=True), samples=samples, inputs=inputs
    )


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_cells_come_out_of_a_block_as_they_went_in(rows):
    inputs = pa.table({"x": array_column(np.arange(rows * 6, dtype=np.int32).reshape(rows, 6))})
    cells = [cell(rows), cell(rows, inputs)]
    out = list(unpack(pa.concat_tables([pack(cells[:1]), pack(cells[1:])])))
    assert [c.chunk for c in out] == [c.chunk for c in cells]
    assert out[0].inputs is None
    assert out[1].samples.equals(cells[1].samples)
    back = column_array(out[1].inputs["x"], np.int32, (-1,))
    assert back.tolist() == np.arange(rows * 6).reshape(rows, 6).tolist()


def test_cells_are_views_of_their_block_wherever_they_are_in_it():
    inputs = pa.table({"x": array_column(np.arange(18, dtype=np.int32).reshape(3, 6))})
    block = pack([cell(1), cell(3, inputs), cell(2), cell(3, inputs)])
    joined = block.combine_chunks()
    for start in range(4):
        rest = joined.slice(start)
        out = list(unpack(rest))
        assert [len(c.samples) for c in out] == [1, 3, 2, 3][start:]
        assert [c.inputs is not None for c in out] == [False, True, False, True][start:]
        data = rest["inputs"].chunk(0).buffers()[2]
        pixels = out[-1].inputs["x"].chunk(0).buffers()[1]
        assert data.address <= pixels.address < data.address + data.size


def test_a_score_that_is_not_a_number_fails_its_sample_and_no_other(network, monkeypatch):
    packed = pack_network(Network(model=f"local-dir:{network}"))
    inputs = pa.table(
        {
            "row": pa.array([0, 2, 3], pa.int64()),
            "pixels_0": array_column(np.zeros((3, 32, 32, 3), np.uint8)),
            "tokens_0": array_column(np.ones((3, 16), np.int32)),
        }
    )
    real = scorer_module.build

    def build(*args, **kwargs):
        network = real(*args, **kwargs)
        score = network.score

        def with_nan(*args, **kwargs):
            result = score(*args, **kwargs)
            result.score_N[:] = [0.5, np.nan, 0.1]
            return result

        network.score = with_nan
        return network

    monkeypatch.setattr(scorer_module, "build", build)
    scorer = Scorer([packed], [NetworkInputs(0, 0)], Scorers(threads=1), "dfn", Bounds(0.3, 0.4))
    samples = scorer(cell(4, inputs)).samples
    assert samples["status"].to_pylist() == ["scored", None, "failed", "scored"]
    assert samples["reason"].to_pylist() == [None, None, "nan_score", None]
    assert samples["score_dfn"].to_pylist() == [0.5, None, None, pytest.approx(0.1)]
    # Bytes travel only where the score reaches the lower bound.
    assert samples["image"].to_pylist() == [b"bytes", None, None, None]


@pytest.mark.parametrize("chunked", [False, True])
def test_bytes_that_are_not_kept_leave_the_table_and_do_not_travel(chunked):
    size, kept = 100_000, [True, False, None, False]
    samples = pa.table(
        {
            "uid": [f"{n:032x}" for n in range(4)],
            "image": pa.array([bytes([n]) * size for n in range(4)], pa.large_binary()),
            "text": pa.array(
                [[f"caption {n}"] for n in range(4)], pa.large_list(pa.large_string())
            ),
            "metadata": pa.array(["{}", None, "{}", None], pa.large_string()),
        }
    )
    if chunked:
        samples = pa.concat_tables([samples.slice(0, 1), samples.slice(1)])
    found = with_bytes_of(samples, pa.array(kept))
    assert found["image"].to_pylist() == [bytes(size), None, None, None]
    assert found["text"].to_pylist() == [["caption 0"], None, None, None]
    assert found["metadata"].to_pylist() == ["{}", None, None, None]
    assert found["uid"] == samples["uid"]
    chunk = Chunk(shard="s", first_row=0, rows=4, last=True)
    assert size < pack([Cell(chunk=chunk, samples=found)]).nbytes < 1.1 * size


@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.15, 0.5, 0.9]))
@settings(max_examples=20, deadline=None)
def test_calibrated_bounds_hold_the_quantile_of_the_whole_pool(seed, share):
    rng = np.random.default_rng(seed)
    shards = [rng.normal(rng.normal(0.2, 0.02), 0.05, 200) for _ in range(200)]
    sample = list(shards[:64])
    bounds = bootstrap_bounds(sample, share, 0.9999, f"{seed:064x}")
    everything = np.sort(np.concatenate(shards))[::-1]
    threshold = everything[int(share * len(everything)) - 1]
    assert bounds.lo <= threshold <= bounds.hi
    between = ((everything >= bounds.lo) & (everything < bounds.hi)).mean()
    assert between < 0.25


def test_bounds_are_open_where_everything_scored_is_wanted_and_closed_where_nothing_is():
    values = [np.array([0.1, 0.2, -np.inf])] * 20
    assert bootstrap_bounds(values, 1.0, 0.99, "0" * 64).lo == -np.inf
    assert bootstrap_bounds(values, 0.0, 0.99, "0" * 64) == NOTHING
    assert EVERYTHING.lo == -np.inf
