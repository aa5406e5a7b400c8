"""Several captions: n passes draw each of n captions once, however a run is interrupted."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.config import Pool, Source
from dfn_ray.pool import list_shards
from dfn_ray.testing.sample_pools import TarBuilder, photo, uid_of
from dfn_ray.training.data.caption_draws import draw_caption
from dfn_ray.training.data.feed import feed_group
from dfn_ray.training.data.group_samples import GroupInputs, read_group
from dfn_ray.training.data.index import drawn_counts, index_shard, source_counts, split_index
from dfn_ray.training.data.order import shuffled_groups
from dfn_ray.uids.records import uid_records
from tests.training.data.test_feed import feeding, rows

COUNT = 20


def captions_of(number: int) -> list[str]:
    return [f"{number} {letter}" for letter in "abcde"[: 1 + number % 5]]


def write(folder: Path, **settings) -> Source:
    folder.mkdir()
    for shard in range(2):
        tar = TarBuilder()
        for number in range(shard * COUNT // 2, (shard + 1) * COUNT // 2):
            metadata = {"uid": uid_of(number)}
            caption = "\n".join(captions_of(number))
            tar.sample(f"{number:04d}", image=photo(number), caption=caption, metadata=metadata)
        (folder / f"{shard}.tar").write_bytes(tar.getvalue())
    pool = Pool(
        uri=(str(folder),), chunk_rows=4, **{"caption": "lines", **settings.pop("pool", {})}
    )
    return Source(pool=pool, **settings)


def visits(
    source: Source, passes: int, *, seed: int = 0, group_samples: int = 7
) -> list[Counter[str]]:
    """The samples and captions of each pass over a source."""
    shards = list_shards(source.pool)
    table = pa.concat_tables([index_shard(source, 0, s, place) for place, s in enumerate(shards)])
    (index,) = split_index(table, [source], [shards])
    samples = index.samples
    if source.sample_count is not None:
        samples = drawn_counts(index, source.sample_count, (seed, 0))
    found = [Counter[str]() for _ in range(passes)]
    for group in shuffled_groups([samples], None, group_samples=group_samples, seed=seed):
        (turn,) = {chunk.turn for chunk in group.chunks}
        if turn == passes:
            return found
        inputs = GroupInputs(group, tuple(index.chunk(chunk.number) for chunk in group.chunks))
        found[turn].update(read_group(inputs, [source], seed=seed).text)
    raise AssertionError


@given(
    st.lists(st.text(), min_size=1, max_size=9, unique=True), st.integers(0, 2**128 - 1),
    st.integers(0, 2**32), st.integers(0, 1000),
)  # fmt: skip
def test_each_caption_is_drawn_once_in_as_many_visits_as_there_are(captions, uid, seed, cycle):
    first = cycle * len(captions)
    own = [
        draw_caption(captions, f"{uid:032x}", first + n, (seed, 0)) for n in range(len(captions))
    ]
    assert sorted(own) == sorted(captions)
    assert own == [
        draw_caption(captions, f"{uid:032x}", n, (seed, 0)) for n in range(len(captions))
    ]


def test_samples_do_not_draw_the_same_places_and_neither_do_seeds_or_sources():
    captions = list("abcde")
    draws = Counter(draw_caption(captions, uid_of(n), 0, (0, 0)) for n in range(5000))
    # 1,000 each, within five standard deviations of a binomial
    assert all(abs(count - 1000) < 5 * 28.3 for count in draws.values())
    for other in ((1, 0), (0, 1)):
        same = sum(
            draw_caption(captions, uid_of(n), 0, (0, 0))
            == draw_caption(captions, uid_of(n), 0, other)
            for n in range(1000)
        )
        assert abs(same - 200) < 5 * 12.7


def test_over_passes_each_caption_of_an_image_comes_equally_often_and_each_image_once_a_pass(
    tmp_path,
):
    source = write(tmp_path / "pool")
    passes = visits(source, 60)
    for counts in passes:
        assert Counter(int(text.split()[0]) for text in counts.elements()) == Counter(range(COUNT))
    total = sum(passes, Counter[str]())
    assert total == {
        text: 60 // len(captions_of(n)) for n in range(COUNT) for text in captions_of(n)
    }
    assert len({tuple(sorted(counts)) for counts in passes[:5]}) == 5


def test_what_is_drawn_depends_on_seed_and_pass_and_not_on_how_the_reading_is_cut(tmp_path):
    source = write(tmp_path / "pool")
    whole = visits(source, 3)
    assert whole == visits(source, 3)
    assert whole == visits(source, 3, group_samples=1000)
    other = Source(pool=Pool(uri=source.pool.uri, chunk_rows=256, caption="lines"))
    assert whole == visits(other, 3)
    assert whole != visits(source, 3, seed=1)


def test_copies_of_a_uid_list_are_visits_of_their_own(tmp_path):
    times = {4: 3, 9: 5, 7: 2, 12: 1}
    listed = uid_records(pa.array([uid_of(n) for n, count in times.items() for _ in range(count)]))
    np.save(tmp_path / "list.npy", listed[np.lexsort((listed["f1"], listed["f0"]))])
    source = write(tmp_path / "pool", uid_list=str(tmp_path / "list.npy"))
    passes = visits(source, 15)
    assert {len(counts) for counts in passes} == {
        sum(min(times[n], len(captions_of(n))) for n in times)
    }
    total = sum(passes, Counter[str]())
    assert total == {
        text: 15 * times[n] // len(captions_of(n)) for n in times for text in captions_of(n)
    }


def test_samples_that_are_drawn_for_all_passes_draw_their_captions_in_turn(tmp_path):
    source = write(tmp_path / "pool", sample_count=9)
    total = sum(visits(source, 60), Counter[str]())
    numbers = {int(text.split()[0]) for text in total}
    assert len(numbers) == 9
    assert total == {text: 60 // len(captions_of(n)) for n in numbers for text in captions_of(n)}


def test_a_source_of_several_lines_is_warned_of_once_and_trained_on_as_before(tmp_path):
    source = write(tmp_path / "pool", pool={"caption": "text"}, name="coco")
    shards = list_shards(source.pool)
    table = pa.concat_tables([index_shard(source, 0, s, place) for place, s in enumerate(shards)])
    (counts,) = source_counts(table, [source], [shards])
    warning = counts.warning()
    assert warning is not None
    assert "source coco: 16 of 20 samples seem to have several captions" in warning
    assert 'pool.caption = "lines"' in warning
    assert "\n" not in warning
    assert visits(source, 1)[0] == Counter("\n".join(captions_of(n)) for n in range(COUNT))
    asked = write(tmp_path / "asked")
    tables = [index_shard(asked, 0, s, place) for place, s in enumerate(list_shards(asked.pool))]
    (told,) = source_counts(pa.concat_tables(tables), [asked], [shards])
    assert told.warning() is None


@pytest.mark.parametrize(("lines", "warns"), [(0, False), (4, False), (5, True)])
def test_a_line_break_now_and_then_is_no_warning(tmp_path, lines, warns):
    tar = TarBuilder()
    for number in range(50):
        tar.sample(f"{number}", image=photo(0), caption="a\nb" if number < lines else "a b")
    (tmp_path / "0.tar").write_bytes(tar.getvalue())
    source = Source(pool=Pool(uri=(str(tmp_path),)))
    (shard,) = list_shards(source.pool)
    (counts,) = source_counts(index_shard(source, 0, shard, 0), [source], [(shard,)])
    assert (counts.warning() is not None) == warns


def test_a_restart_in_the_middle_of_a_group_draws_what_would_have_come(tmp_path):
    source = write(tmp_path / "pool")
    shards = list_shards(source.pool)
    table = pa.concat_tables([index_shard(source, 0, s, place) for place, s in enumerate(shards)])
    (index,) = split_index(table, [source], [shards])
    how = feeding(source)
    for group in islice(shuffled_groups([index.samples], None, group_samples=50, seed=0), 3):
        inputs = GroupInputs(group, tuple(index.chunk(chunk.number) for chunk in group.chunks))
        whole = rows(list(feed_group(inputs, (), feeding=how)))
        rest = rows(list(feed_group(inputs, ((0, 3), (8, 11)), feeding=how)))
        left = [*range(3, 8), *range(11, COUNT)]
        for name in ("text", "image"):
            assert np.array_equal(rest[name], whole[name][left])
