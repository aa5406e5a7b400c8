"""Drawn captions with any number of workers and starts: as planned, and with real workers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.config import TrainRecipe, recipe_from
from dfn_ray.network.byte_pairs import tokens_and_merges
from dfn_ray.network.tokenizer import TokenizerSpec, tokenize
from dfn_ray.network.weights import read_checkpoint
from dfn_ray.pool import list_shards
from dfn_ray.run import open_run
from dfn_ray.testing.sample_pools import TarBuilder, photo, uid_of
from dfn_ray.training.checkpoint import read_tensors
from dfn_ray.training.data.feed import feed_group
from dfn_ray.training.data.group_samples import read_group
from dfn_ray.training.data.index import index_shard, split_index
from dfn_ray.training.data.next_samples import NextSamples
from dfn_ray.training.data.seen import Seen
from dfn_ray.training.position import latest_position
from dfn_ray.training.train_clip import train
from tests.training.data.test_feed import feeding

COUNT, PASSES = 12, 12
"""Number of images, and a multiple of their numbers of captions, 1 to 4."""
BATCH = 12
_WORDS = [token[:-4] for token in tokens_and_merges()[0] if token.endswith("</w>")]
WORDS = [word for word in _WORDS if word.isascii() and word.isalpha() and len(word) > 5]
"""Captions of one distinct token each."""


def captions_of(number: int) -> list[str]:
    return [WORDS[4 * number + n] for n in range(1 + number % 4)]


ALL = {word: number for number in range(COUNT) for word in captions_of(number)}


@pytest.fixture(params=["lines", "list"])
def made(request, tmp_path, network):
    """Makes recipes over a pool with several captions: `made(workers=2)`."""
    form, folder = request.param, tmp_path / "pool"
    folder.mkdir()
    for shard in range(2):
        tar = TarBuilder()
        for number in range(shard, COUNT, 2):
            own, metadata = captions_of(number), {"uid": uid_of(number)}
            if form == "list":
                tar.sample(str(number), image=photo(number), metadata=metadata | {"captions": own})
            else:
                caption = "\n".join(own)
                tar.sample(str(number), image=photo(number), caption=caption, metadata=metadata)
        (folder / f"{shard}.tar").write_bytes(tar.getvalue())

    def make(*, workers: int = 1, seed: int = 0) -> TrainRecipe:
        values = {
            "run_uri": str(tmp_path / "run"),
            "seed": seed,
            "sources": [{"pool": {"uri": str(folder), "chunk_rows": 4, "caption": form}}],
            "model": {"model": f"local-dir:{network}"},
            "samples_seen": COUNT * PASSES,
            "batch_size": BATCH,
            "optimizer": {"warmup_steps": 0, "weight_decay": 0.0},
            "feed": {"group_samples": 7},
            "workers": {"min_size": workers, "max_size": workers, "threads": 1},
        }
        return recipe_from(values, (), TrainRecipe)

    return make


def next_samples_of(recipe: TrainRecipe, index: pa.Table | None = None) -> NextSamples:
    """The rows that the workers of a run read."""
    sources, shards = recipe.sources, [list_shards(source.pool) for source in recipe.sources]
    tables = [index_shard(sources[0], 0, shard, place) for place, shard in enumerate(shards[0])]
    return NextSamples(
        run=None,  # type: ignore[arg-type]
        recipe=recipe,
        indexes=split_index(index or pa.concat_tables(tables), sources, shards),
        feeding=None,  # type: ignore[arg-type]
        row_bytes=1,
    )


Row = tuple[tuple[int, int, int], str]
"""Group and places of a row, and its caption."""


def rows_from(next_samples: NextSamples, seen: Seen, samples_seen: int) -> Iterator[Row]:
    """The rows that are not seen yet, in the order in which they are distributed."""
    captions = {token: word for word, token in tokens_of(ALL).items()}
    how = feeding(next_samples.recipe.sources[0])
    for reading in next_samples.readings(seen, samples_seen):
        for block in feed_group(reading.inputs, reading.spans, feeding=how):
            for place, text in zip(block["place"].tolist(), block["text"], strict=True):
                yield (place[0], place[1], place[2]), captions[int(text[1])]


def tokens_of(words: Sequence[str] | dict[str, int]) -> dict[str, int]:
    tokens_NL = tokenize(TokenizerSpec(context_length=16), list(words))
    assert not tokens_NL[:, 3:].any()
    return dict(zip(words, tokens_NL[:, 1].tolist(), strict=True))


def trained(recipe: TrainRecipe, starts: Sequence[tuple[int, int]], cuts: int = 0) -> dict:
    """Captions by place, over starts with these numbers of workers and steps.

    Workers receive blocks of rows in turn. Rows that a worker received but did not reach before all
    workers stopped are holes.
    """
    rng = np.random.default_rng(cuts)
    next_samples, seen, steps_done = next_samples_of(recipe), Seen(), 0
    found: dict[tuple[int, int, int], str] = {}
    for workers, steps in starts:
        stream = rows_from(next_samples, seen, steps_done * BATCH)
        queues: list[deque[Row]] = [deque() for _ in range(workers)]
        used: list[list[Row]] = [[] for _ in range(workers)]
        share, turn = BATCH // workers * steps, 0
        while any(len(mine) < share for mine in used):
            queues[turn % workers].extend(islice(stream, int(rng.integers(1, 8))))
            turn += 1
            for mine, queue in zip(used, queues, strict=True):
                while queue and len(mine) < share:
                    mine.append(queue.popleft())
        places = [place for mine in used for place, _ in mine]
        closed = min(mine[-1][0][0] for mine in used)
        seen = seen.with_spans(np.array(places), closed=closed)
        for place, caption in (row for mine in used for row in mine):
            assert found.setdefault(place, caption) == caption
        assert len(found) == (steps_done + steps) * BATCH
        steps_done += steps
    return found


def test_what_is_drawn_is_the_same_for_any_number_of_workers_and_any_restarts(made):
    whole = trained(made(), [(1, PASSES)])
    counts = Counter(whole.values())
    assert counts == {word: PASSES // len(captions_of(number)) for word, number in ALL.items()}
    for cuts, starts in enumerate(([(2, 5), (1, 7)], [(4, 3), (3, 2), (2, 1), (1, 6)])):
        assert trained(made(), starts, cuts) == whole
    assert trained(made(seed=1), [(1, PASSES)]) != whole


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("made", ["list"], indirect=True)
def test_real_workers_train_on_just_the_captions_that_are_drawn(local_ray, made):
    """An embedding changes only once its token is seen: the weights tell which captions were."""
    recipe = made(workers=2)
    moved = []
    for workers, passes in ((2, 1), (2, 2), (1, 4)):
        train(made(workers=workers), until_samples=passes * COUNT)
        moved.append(moved_words(recipe))
        assert moved[-1] == words_seen(recipe)
    assert len(moved[0]) < len(moved[1]) < len(moved[2])
    assert moved[2] == set(ALL)  # no image has more than four


def moved_words(recipe: TrainRecipe) -> set[str]:
    run, name = open_run(recipe.run_uri), "token_embedding.weight"
    folder = Path(recipe.model.model.removeprefix("local-dir:"))
    before = read_checkpoint(folder / "open_clip_model.safetensors")[name]
    after = read_tensors(run, latest_position(run), "model")[name]
    return {word for word, token in tokens_of(ALL).items() if (before[token] != after[token]).any()}


def words_seen(recipe: TrainRecipe) -> set[str]:
    """The captions of the places that the run's last checkpoint contains as seen."""
    run = open_run(recipe.run_uri)
    with run.store.open("index.parquet") as file:
        next_samples = next_samples_of(recipe, pq.read_table(file))
    seen, found = latest_position(run).seen, set()
    for reading in NextSamples.readings(next_samples, Seen(), 0):
        number = reading.inputs.group.number
        texts = read_group(reading.inputs, recipe.sources, seed=recipe.seed).text
        spans = ((0, len(texts)),) if number < seen.groups else seen.spans.get(number, ())
        found |= {text for first, end in spans for text in texts[first:end]}
    return found
