"""Inputs of groups: every place once, whatever was seen and whatever fails."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from dfn_ray.config import Augmentation, Decode, Pool, Source
from dfn_ray.errors import InputError, ShardChangedError
from dfn_ray.images.transform import ImageTransform
from dfn_ray.network.tokenizer import TokenizerSpec
from dfn_ray.pool import list_shards
from dfn_ray.testing.sample_pools import TarBuilder, photo, uid_of
from dfn_ray.training.data import feed as module
from dfn_ray.training.data.feed import COUNTED, Feeding, LabelCaptions, feed_group
from dfn_ray.training.data.group_samples import GroupInputs
from dfn_ray.training.data.index import drawn_counts, index_shard, split_index
from dfn_ray.training.data.order import shuffled_groups

TRANSFORM = ImageTransform(
    size=(32, 32), resize_mode="shortest", interpolation="bicubic", mean=(0, 0, 0), std=(1, 1, 1)
)


def write(folder, count=60, broken=(), label=False):
    tar = TarBuilder()
    for number in range(count):
        image = b"\xff\xd8\xff broken" if number in broken else photo(number)
        caption = str(number % 3) if label else f"number {number}"
        tar.sample(f"{number:04d}", image=image, caption=caption, metadata={"uid": uid_of(number)})
    folder.mkdir(exist_ok=True)
    (folder / "0.tar").write_bytes(tar.getvalue())
    return Source(pool=Pool(uri=(str(folder),), chunk_rows=8))


def indexed(source):
    shards = list_shards(source.pool)
    tables = [index_shard(source, 0, shard, place) for place, shard in enumerate(shards)]
    return split_index(tables[0], [source], [shards])[0]


def groups_of(source, index, count, group_samples=24):
    samples = index.samples
    if source.sample_count is not None:
        samples = drawn_counts(index, source.sample_count, (0, 0))
    for group in islice(
        shuffled_groups([samples], None, group_samples=group_samples, seed=0), count
    ):
        yield GroupInputs(group, tuple(index.chunk(chunk.number) for chunk in group.chunks))


def feeding(source, augmentation=None, captions=None):
    return Feeding(
        sources=(source,),
        captions=(captions,),
        decode=Decode(),
        transform=TRANSFORM,
        augmentation=augmentation,
        tokenizer=TokenizerSpec(context_length=16),
        seed=0,
    )


def rows(blocks):
    return {
        k: np.concatenate([block[k] for block in blocks])
        for k in ("image", "text", "place", "counts")
    }


@pytest.mark.parametrize("spans", [(), ((0, 5),), ((3, 9), (15, 24))])
def test_the_places_of_a_group_and_what_was_seen_cover_it_without_overlap(
    tmp_path, monkeypatch, spans
):
    monkeypatch.setattr(module, "DECODED_TOGETHER", 5)
    source = write(tmp_path / "pool", broken=(0, 7, 20, 21, 22, 59))
    index = indexed(source)
    for inputs in groups_of(source, index, 3):
        size = inputs.group.samples
        own = tuple((first, min(end, size)) for first, end in spans if first < size)
        found = rows(list(feed_group(inputs, own, feeding=feeding(source))))
        covered = np.zeros(size, dtype=int)
        for first, end in [*own, *found["place"][:, 1:].tolist()]:
            covered[first:end] += 1
        assert covered.max() == 1
        # Only places behind the last sample that decodes may stay open, and they fail again.
        still_open = np.flatnonzero(covered == 0)
        again = list(
            feed_group(inputs, (*own, *map(tuple, found["place"][:, 1:])), feeding=feeding(source))
        )
        assert len(still_open) == 0 or again == []
        reached = (found["place"][:, 2] - found["place"][:, 1]).sum()
        assert reached == len(found["text"]) + found["counts"].sum()


def test_a_pass_has_every_good_sample_once_and_counts_the_bad_ones(tmp_path):
    source = write(tmp_path / "pool", broken=(3, 30))
    index = indexed(source)
    assert index.total == 60
    blocks = [
        b for i in groups_of(source, index, 3) for b in feed_group(i, (), feeding=feeding(source))
    ]
    found = rows(blocks)
    assert len({row.tobytes() for row in found["text"]}) == len(found["text"]) == 58
    assert found["counts"].sum() == 2


def test_failed_samples_that_no_row_stands_for_are_handed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DECODED_TOGETHER", 5)
    source = write(tmp_path / "pool", count=24, broken=range(24))
    (inputs,) = groups_of(source, indexed(source), 1)
    handed = []
    how = {"feeding": feeding(source), "unplaced": lambda *values: handed.append(values)}
    assert list(feed_group(inputs, (), **how)) == []
    ((group, place, counts),) = handed
    assert (group, place, counts.sum()) == (0, 0, 24)
    source = write(tmp_path / "other", count=24, broken=range(23))
    (inputs,) = groups_of(source, indexed(source), 1)
    found = rows(list(feed_group(inputs, (), **(how | {"feeding": feeding(source)}))))
    left = sum(counts.sum() for *_, counts in handed[1:])
    assert found["counts"].sum() + left == 23


def test_images_that_end_early_are_noted(tmp_path):
    whole = photo(3)
    source = write(tmp_path / "pool", count=1)
    tar = TarBuilder()
    tar.sample("0", image=whole[: len(whole) * 3 // 4], caption="cut", metadata={"uid": uid_of(0)})
    (tmp_path / "pool" / "0.tar").write_bytes(tar.getvalue())
    (inputs,) = groups_of(source, indexed(source), 1)
    counts = rows(list(feed_group(inputs, (), feeding=feeding(source))))["counts"].sum(axis=0)
    assert {name: n for name, n in zip(COUNTED, counts, strict=True) if n} == {
        "truncated_scored": 1
    }


def test_what_is_fed_after_a_resume_is_what_would_have_come(tmp_path):
    source = write(tmp_path / "pool")
    inputs = next(groups_of(source, indexed(source), 1))
    how = feeding(source, Augmentation(min_scale=0.3))
    whole = rows(list(feed_group(inputs, (), feeding=how)))
    rest = rows(list(feed_group(inputs, ((0, 10),), feeding=how)))
    for name in ("image", "text", "place"):
        assert np.array_equal(rest[name], whole[name][10:])


def test_a_sample_varies_from_pass_to_pass_and_its_group_is_in_a_new_order(tmp_path):
    source = write(tmp_path / "pool", count=16)
    first, second = groups_of(source, indexed(source), 2, group_samples=100)
    how = feeding(source, Augmentation(min_scale=0.3))
    one, two = (rows(list(feed_group(inputs, (), feeding=how))) for inputs in (first, second))
    order_one, order_two = ([row.tobytes() for row in r["text"]] for r in (one, two))
    assert sorted(order_one) == sorted(order_two)
    assert order_one != order_two
    place = order_two.index(order_one[0])
    assert not np.array_equal(one["image"][0], two["image"][place])


def test_exactly_the_drawn_count_is_trained_on_and_the_same_in_every_pass(tmp_path):
    plain = write(tmp_path / "pool")
    source = Source(pool=plain.pool, sample_count=23)
    index = indexed(source)
    passes = []
    for inputs in groups_of(source, index, 2, group_samples=1000):
        found = rows(list(feed_group(inputs, (), feeding=feeding(source))))
        passes.append(sorted(row.tobytes() for row in found["text"]))
    assert len(passes[0]) == 23
    assert passes[0] == passes[1]
    with pytest.raises(InputError, match="at most 60, the number of samples, got 61"):
        drawn_counts(index, 61, (0, 0))


def test_a_uid_list_repeats_what_it_repeats_and_leaves_out_the_rest(tmp_path):
    from dfn_ray.uids.records import uid_records

    plain = write(tmp_path / "pool")
    import pyarrow as pa

    listed = uid_records(pa.array([uid_of(n) for n in (5, 9, 9, 9, 40)]))
    np.save(tmp_path / "list.npy", listed[np.lexsort((listed["f1"], listed["f0"]))])
    source = Source(pool=plain.pool, uid_list=str(tmp_path / "list.npy"))
    inputs = next(groups_of(source, indexed(source), 1, group_samples=1000))
    found = rows(list(feed_group(inputs, (), feeding=feeding(source))))
    _, counts = np.unique(found["text"], axis=0, return_counts=True)
    assert sorted(counts) == [1, 1, 3]


def test_labels_become_captions_by_templates_that_vary(tmp_path):
    source = write(tmp_path / "pool", label=True)
    captions = LabelCaptions(("cat", "dog", "owl"), ("a photo of a {}.", "a drawing of a {}."))
    how = feeding(source, captions=captions)
    blocks = [
        b for i in groups_of(source, indexed(source), 3) for b in feed_group(i, (), feeding=how)
    ]
    assert len(np.unique(rows(blocks)["text"], axis=0)) == 6
    with pytest.raises(InputError, match="label 'x'"):
        captions.caption("x", np.random.default_rng(0))
    with pytest.raises(InputError, match="a number below 3"):
        captions.caption("3", np.random.default_rng(0))
    few = feeding(source, captions=LabelCaptions(("cat",), ("a photo of a {}.",)))
    inputs = next(groups_of(source, indexed(source), 1))
    with pytest.raises(InputError, match=r"^sources\.0: .*/pool: label '[12]': need a number"):
        list(feed_group(inputs, (), feeding=few))


def test_a_shard_that_changed_is_refused(tmp_path):
    source = write(tmp_path / "pool")
    index = indexed(source)
    write(tmp_path / "pool", count=50)
    groups = list(groups_of(source, index, 3))
    with pytest.raises(ShardChangedError, match="differs from the listed shard"):
        [list(feed_group(inputs, (), feeding=feeding(source))) for inputs in groups]
