"""Members that are not samples: extras beside an image, and files about the archive."""

from __future__ import annotations

import gzip
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfn_ray.testing.sample_pools import TarBuilder

DATA = {"txt": b"c", "json": b"{}"}


def tar_of(names: list[str]) -> TarBuilder:
    tar = TarBuilder()
    for name in names:
        tar.member(name, DATA.get(name.rpartition(".")[2], b"image of " + name.encode()))
    return tar


@pytest.mark.parametrize(
    "name",
    [
        "__index__.json",
        "x/__meta__.json",
        "__index__.txt",
        "dataset_info.json",
        "a/dataset_infos.json",
        "README.txt",
        "readme.json",
        "LICENSE.txt",
        "sub/Licence.txt",
        "NOTICE.txt",
    ],
)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_files_about_the_archive_are_no_samples(read, name, place):
    names = ["0.jpg", "0.txt", "1.jpg", "1.txt"]
    result = read(tar_of([*names[:place], name, *names[place:]]).getvalue(), chunk_rows=1)
    assert result.reasons == {"0": None, "1": None}


def test_an_image_of_such_a_name_is_a_sample_with_its_caption(read):
    names = ["__0sKRz.jpg", "__0sKRz.txt", "license.txt", "license.jpg"]
    assert read(tar_of(names).getvalue()).reasons == {"__0sKRz": None, "license": None}


GROUP = ["000.jpg", "000.txt", "000.json", "000.seg.png", "000.depth.png", "000.seg.v2.webp"]


@pytest.mark.parametrize("chunk_rows", [1, 2, 3])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_dotted_images_beside_an_image_are_extras_in_any_order(read, seed, packed, chunk_rows):
    order = random.Random(seed).sample(GROUP, len(GROUP))
    names = [name.replace("000", key) for key in ("000", "001", "002") for name in order]
    data = tar_of(names).getvalue()
    result = read(gzip.compress(data) if packed else data, chunk_rows=chunk_rows)
    assert [(row["key"], row["reason"], row["image"]) for row in result.rows] == [
        (key, None, f"image of {key}.jpg".encode()) for key in ("000", "001", "002")
    ]
    if chunk_rows == 1:
        some = read(gzip.compress(data) if packed else data, chunk_rows=1, **result.skipping(0, 2))
        assert some.rows == result.rows[1:2]


@pytest.mark.parametrize("own", ["000.seg.txt", "000.seg.json"])
@pytest.mark.parametrize("seed", range(6))
def test_a_dotted_image_with_a_caption_of_its_own_is_a_sample(read, own, seed):
    names = [own, "000.jpg", "000.txt", "000.seg.png", "000.depth.png"]
    random.Random(seed).shuffle(names)
    result = read(tar_of([*names, "001.jpg", "001.txt"]).getvalue())
    assert set(result.reasons) == {"000", "000.seg", "001"}


def test_dotted_images_without_a_shorter_one_are_samples(read):
    names = [f"photo.{number:04d}.jpg" for number in range(100)]
    assert len(read(tar_of(names).getvalue(), chunk_rows=7).rows) == 100
    names = [name for n in range(20) for name in (f"x.{n}.jpg", f"x.{n}.txt")]
    assert set(read(tar_of(names).getvalue(), chunk_rows=7).reasons.values()) == {None}


def test_a_folder_with_a_dot_is_no_shorter_name(read):
    names = ["v1.jpg", "v1.txt", "v1.0/a.jpg", "v1.0/a.txt"]
    assert read(tar_of(names).getvalue()).reasons == {"v1": None, "v1.0/a": None}


def test_extras_of_a_tar_sorted_by_extension_are_no_samples(read):
    names = [f"{n}.{end}" for end in ("jpg", "seg.png", "txt") for n in range(9)]
    result = read(tar_of(names).getvalue(), chunk_rows=2)
    assert result.reasons == {str(n): None for n in range(9)}
    assert result.boundaries == [(0, 2), (2, 2), (4, 2), (6, 2), (8, 1)]


@pytest.mark.parametrize("cut", range(0, 3500, 300))
def test_a_cut_beside_an_extra_costs_no_sample_before_it(read, cut):
    data = tar_of(["0.jpg", "0.txt", "0.seg.png", "1.seg.png", "1.jpg", "1.txt"]).getvalue()
    result = read(data[: len(data) - cut])
    assert result.reasons.get("0") is None
    assert "0.seg" not in result.reasons


PARTS = ("jpg", "txt", "json", "seg.png", "seg.txt", "seg.v2.jpg", "heic", "npz")
member_names = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(PARTS)).map(".".join), max_size=24
)


@settings(deadline=None, max_examples=150)
@given(names=member_names, chunk_rows=st.integers(1, 4), packed=st.booleans(), data=st.data())
def test_rows_do_not_depend_on_which_are_wanted(read, put, names, chunk_rows, packed, data):
    content = tar_of(names).getvalue()
    shard = put(gzip.compress(content, mtime=0) if packed else content)
    whole = read(shard, chunk_rows=chunk_rows)  # reads each chunk by itself as well
    skip = data.draw(st.sets(st.sampled_from([first for first, _ in whole.boundaries])))
    some = read(shard, chunk_rows=chunk_rows, **whole.skipping(*skip))
    assert some.chunks == [chunk for chunk in whole.chunks if chunk.first_row not in skip]
    kept = [range(chunk.first_row, chunk.first_row + chunk.rows) for chunk in some.chunks]
    rows = set(itertools.chain.from_iterable(kept))
    assert some.rows == [row for row in whole.rows if row["row"] in rows]


@settings(deadline=None, max_examples=100)
@given(order=st.permutations(GROUP[:-1]), keys=st.integers(1, 5), chunk_rows=st.integers(1, 3))
def test_whole_groups_give_one_row_each(read, order, keys, chunk_rows):
    names = [name.replace("000", str(key)) for key in range(keys) for name in order]
    result = read(tar_of(names).getvalue(), chunk_rows=chunk_rows)
    assert [(row["key"], row["reason"]) for row in result.rows] == [
        (str(key), None) for key in range(keys)
    ]


@pytest.mark.parametrize("ending", ["heic", "HEIF", "jxl", "jp2", "svg"])
def test_an_image_of_a_format_that_is_not_decoded_has_a_reason_of_its_own(read, ending):
    tar = TarBuilder().member(f"0.{ending}", b"i").member("0.txt", b"c")
    tar.sample("1", image=b"i", caption="c")
    assert read(tar.getvalue()).reasons == {"0": "unsupported_image", "1": None}


@pytest.mark.parametrize("order", [("heic", "jpg"), ("jpg", "heic")])
def test_an_image_that_is_decoded_wins_over_one_that_is_not(read, order):
    tar = TarBuilder()
    for ending in order:
        tar.member(f"0.{ending}", ending.encode())
    (row,) = read(tar.member("0.txt", b"c").getvalue()).rows
    assert (row["reason"], row["image"]) == (None, b"jpg")


def test_a_pool_of_such_images_alone_is_not_indexed(read):
    tar = TarBuilder()
    for number in range(9):
        tar.member(f"{number}.heic", b"i").member(f"{number}.txt", b"c")
    result = read(tar.getvalue(), chunk_rows=2)
    assert set(result.reasons.values()) == {"unsupported_image"}
    assert all(chunk.at is not None for chunk in result.chunks)


@pytest.mark.parametrize("ending", ["avif", "jfif", "jpe", "JPE"])
def test_every_ending_of_the_one_list_is_an_image(read, ending):
    (row,) = read(TarBuilder().member(f"0.{ending}", b"i").member("0.txt", b"c").getvalue()).rows
    assert (row["reason"], row["image"]) == (None, b"i")
