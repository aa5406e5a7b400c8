from __future__ import annotations

import gzip
import io
import random
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfn_ray.config import Pool
from dfn_ray.pool import Shard, iter_chunks
from dfn_ray.pool.chunking import RowSelection
from dfn_ray.pool.tars.tape import Tape
from dfn_ray.pool.tars.webdataset import tar_chunks
from dfn_ray.schema import Reason, ShardFault
from dfn_ray.testing.sample_pools import TarBuilder

MIB = 2**20
PARTS = ("jpg", "txt", "json", "png", "syn.json", "v2.jpg", "v2.txt")

image_sizes = st.lists(st.sampled_from([0, 1, 100_000, 524_288, 700_000, 1_500_000]), max_size=9)
member_names = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(PARTS)).map(".".join), max_size=30
)


def tar_of(names: list[str], image_bytes: int = 400_000) -> bytes:
    tar = TarBuilder()
    for number, name in enumerate(names):
        is_image = name.endswith(("jpg", "png"))
        tar.member(name, bytes([number]) * image_bytes if is_image else b'{"n": %d}' % number)
    return tar.getvalue()


def rows_and_peak_bytes(path: str, pool: Pool) -> tuple[int, int]:
    """Reads a shard to its end; returns its rows and Python's peak memory."""
    shard = Shard(path, "00000.tar", 0)
    next(iter_chunks(shard, pool))  # whatever is imported at first use does not count
    tracemalloc.start()
    rows = sum(table.num_rows for _, table in iter_chunks(shard, pool))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return rows, peak


@settings(deadline=None, max_examples=60)
@given(sizes=image_sizes, chunk_rows=st.integers(1, 5))
def test_a_chunk_ends_as_soon_as_its_rows_or_bytes_are_reached(read, sizes, chunk_rows):
    tar = TarBuilder()
    for number, size in enumerate(sizes):
        tar.sample(str(number), image=bytes(size), caption="c")
    result = read(tar.getvalue(), chunk_rows=chunk_rows, chunk_bytes=MIB)
    assert [row["key"] for row in result.rows] == [str(number) for number in range(len(sizes))]
    at = 0
    for first, rows in result.boundaries:
        assert first == at
        at += rows

        def full(count, first=first):
            return count >= chunk_rows or sum(sizes[first : first + count]) >= MIB

        assert rows == 0 or not full(rows - 1)
        assert full(rows) or at == len(sizes)
    assert at == len(sizes)


@settings(deadline=None, max_examples=60)
@given(names=member_names, chunk_rows=st.integers(1, 4), data=st.data())
def test_skipping_chunks_changes_nothing_in_the_others(read, put, names, chunk_rows, data):
    shard = put(tar_of(names))
    cut = {"chunk_rows": chunk_rows, "chunk_bytes": MIB}
    whole = read(shard, **cut)
    skip = data.draw(st.sets(st.sampled_from([first for first, _ in whole.boundaries])))
    some = read(shard, **whole.skipping(*skip), **cut)
    assert some.chunks == [chunk for chunk in whole.chunks if chunk.first_row not in skip]
    kept = {
        row for chunk in some.chunks for row in range(chunk.first_row, chunk.first_row + chunk.rows)
    }
    assert some.rows == [row for row in whole.rows if row["row"] in kept]


@settings(deadline=None, max_examples=60)
@given(names=member_names, chunk_rows=st.integers(1, 4))
def test_whatever_the_order_every_image_is_in_one_row_and_bytes_add_up(read, names, chunk_rows):
    tar = tar_of(names, image_bytes=40)
    result = read(tar, chunk_rows=chunk_rows)
    assert sum(chunk.bytes_read for chunk in result.chunks) == len(tar)
    assert {row["key"] for row in result.rows} >= {
        name.rpartition(".")[0] for name in names if name[1:] in (".jpg", ".png")
    }
    assert len({row["row"] for row in result.rows}) == len(result.rows)
    first_images = [row["image"] for row in result.rows if row["image"] is not None]
    assert len(set(first_images)) == len(first_images)
    assert max(chunk.rows for chunk in result.chunks) <= chunk_rows


def test_chunk_boundaries_do_not_depend_on_other_settings(read):
    tar = TarBuilder()
    for number, size in enumerate([900_000, 300_000, 5, 5, 2_000_000, 5]):
        tar.sample(str(number), image=bytes(size), caption="c" * 300)
    whole = read(tar.getvalue(), chunk_bytes=MIB)
    small = read(
        tar.getvalue(), chunk_bytes=MIB, max_image_bytes=1024, max_caption_bytes=10, uid="derive"
    )
    assert small.boundaries == whole.boundaries == [(0, 2), (2, 3), (5, 1)]


def test_memory_is_bounded_by_a_chunk(tmp_path):
    path = tmp_path / "00000.tar"
    with path.open("wb") as file:
        for number in range(150):
            tar = TarBuilder().sample(f"{number:04d}", image=bytes(200_000), caption="c")
            file.write(tar.getvalue(end=number == 149))
    pool = Pool(uri=(str(path),), chunk_bytes=MIB)
    rows, peak = rows_and_peak_bytes(str(path), pool)
    assert rows == 150
    assert peak < 4 * MIB


def test_memory_is_bounded_by_a_chunk_in_an_indexed_tar_as_well(tmp_path):
    path = tmp_path / "00000.tar"
    with path.open("wb") as file:
        for extension in ("jpg", "txt"):
            for number in range(150):
                data = bytes(200_000 if extension == "jpg" else 10)
                file.write(
                    TarBuilder().member(f"{number:04d}.{extension}", data).getvalue(end=False)
                )
        file.write(bytes(1024))
    pool = Pool(uri=(str(path),), chunk_bytes=MIB)
    rows, peak = rows_and_peak_bytes(str(path), pool)
    assert rows == 150
    assert peak < 4 * MIB


def sorted_by_extension(first: str, sizes: dict[str, int], count: int) -> bytes:
    """All members of one extension, then all of the next."""
    tar = TarBuilder()
    for extension in (first, *(name for name in sizes if name != first)):
        for number in range(count):
            data = bytes(sizes[extension])
            if extension != "jpg":
                data = b'{"n": "' + b"x" * (sizes[extension] - 9) + b'"}'
            tar.member(f"{number:03d}.{extension}", data)
    return tar.getvalue()


@pytest.mark.parametrize(
    "sizes", [{"txt": 10, "jpg": 300_000}, {"jpg": 10, "txt": 10, "json": 300_000}]
)
def test_a_compressed_tar_sorted_by_extension_holds_a_chunk_and_fails_the_rest(
    read, tmp_path, sizes
):
    data = gzip.compress(sorted_by_extension(next(iter(sizes)), sizes, 60), 1, mtime=0)
    path = tmp_path / "00000.tar.gz"
    path.write_bytes(data)
    rows, peak = rows_and_peak_bytes(str(path), Pool(uri=(str(path),), chunk_bytes=MIB))
    assert rows == 60
    assert peak < 6 * MIB
    result = read(data, chunk_bytes=MIB)
    reasons = list(result.reasons.values())
    held = reasons.index(Reason.NON_CONTIGUOUS)
    assert held in (4, 5)
    # The last sample that began is at hand, however full the chunk is.
    assert reasons == [None] * held + [Reason.NON_CONTIGUOUS] * (59 - held) + [None]
    assert result.last.fault is None
    plain = sorted_by_extension(next(iter(sizes)), sizes, 60)
    assert set(read(plain, chunk_bytes=MIB).reasons.values()) == {None}


def test_captions_of_a_full_chunk_are_read_in_a_compressed_tar_as_well(read):
    data = sorted_by_extension("jpg", {"jpg": 400_000, "json": 100, "txt": 100}, 3)
    assert set(read(gzip.compress(data, 1, mtime=0), chunk_bytes=MIB).reasons.values()) == {None}


@pytest.mark.parametrize("layout", ["plain", "gzip", "images first"])
@pytest.mark.parametrize("part", ["key", "caption", "json"])
def test_keys_captions_and_metadata_count_towards_a_chunk(read, part, layout):
    size = 4000 if part == "key" else 60_000
    in_chunk = -(-MIB // (size + 15))
    entries = []
    for number in range(2 * in_chunk + 3):
        stem = f"{'n' * (size if part == 'key' else 1)}{number:03d}"
        caption = b"c" * (size if part == "caption" else 1)
        json = b'{"a": "' + b"x" * (size if part == "json" else 1) + b'"}'
        entries += [(f"{stem}.jpg", b"i"), (f"{stem}.txt", caption), (f"{stem}.json", json)]
    if layout == "images first":
        entries.sort(key=lambda entry: not entry[0].endswith("jpg"))
    tar = TarBuilder(2)
    for name, data in entries:
        tar.member(name, data)
    data = tar.getvalue()
    data = gzip.compress(data, 1, mtime=0) if layout == "gzip" else data
    result = read(data, chunk_bytes=MIB, chunk_rows=10_000)
    assert set(result.reasons.values()) == {None}
    assert [chunk.rows for chunk in result.chunks] == [in_chunk, in_chunk, 3]


def test_metadata_of_parquet_counts_towards_a_chunk(read):
    file = io.BytesIO()
    wide = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int32()), pa.array(["v" * 60_000]))
    columns = {"image": [b"i"] * 100, "text": ["c"] * 100, "wide": wide}
    pq.write_table(pa.table(columns), file)
    result = read(file.getvalue(), chunk_bytes=MIB)
    assert [chunk.rows for chunk in result.chunks] == [18] * 5 + [10]


@pytest.mark.parametrize("chunk_rows", [1, 2, 5])
def test_places_in_the_store_do_not_depend_on_what_is_skipped(read, put, chunk_rows):
    """Dotted images are read after a look-ahead, and skipped gzip is unpacked in other steps."""
    rng = random.Random(chunk_rows)
    names = ["a", "a.b", "b", "b.x", "c", "c.seg", "d.1", "d.2", "e"]
    for seed in range(20):
        tar = TarBuilder()
        for name in rng.sample(names, len(names)):
            for extension in rng.sample(["jpg", "txt", "seg.jpg", "0.txt"], rng.randint(1, 4)):
                tar.member(f"{name}.{extension}", rng.randbytes(rng.choice((10, 300_000))))
        data = tar.getvalue()
        shard = put(gzip.compress(data, 1, mtime=0) if seed % 2 else data, f"{seed}.tar")
        whole = read(shard, chunk_rows=chunk_rows)
        assert sum(chunk.bytes_read for chunk in whole.chunks) == shard.size_bytes
        assert all(chunk.bytes_read >= 0 for chunk in whole.chunks)
        for kept in whole.chunks:
            others = {chunk.first_row for chunk in whole.chunks} - {kept.first_row}
            some = read(shard, chunk_rows=chunk_rows, **whole.skipping(*others))
            assert some.chunks == [kept]


def test_a_member_that_states_bytes_that_are_not_there_makes_no_chunk_larger_than_its_shard(read):
    tar = TarBuilder()
    for number in range(6):
        tar.member(f"{number}.jpg", b"image")
    for number in (5, 4, 0):
        tar.member(f"{number}.txt", b"c")
    data = bytearray(tar.getvalue(end=False))
    at = data.index(b"0.txt")
    data[at + 124 : at + 136] = b"%011o\0" % 2**30
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    result = read(bytes(data), chunk_rows=2)
    assert result.last.fault is ShardFault.TRUNCATED
    assert sum(chunk.bytes_read for chunk in result.chunks) == len(data)
    assert all(chunk.bytes_read >= 0 for chunk in result.chunks)


class CountingFile(io.BytesIO):
    """A file that counts the bytes read from it."""

    bytes_read = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def test_of_skipped_chunks_only_headers_are_read():
    tar = TarBuilder()
    for number in range(40):
        tar.sample(f"{number:02d}", image=bytes(50_000), caption="c" * 1000)
    pool = Pool(uri=("unused",), chunk_rows=10)
    file = CountingFile(tar.getvalue())
    list(tar_chunks(Tape(file), pool, RowSelection(skip=frozenset({0, 10, 30}))))
    headers = 80 * 512 + 1024
    assert file.bytes_read == headers + 10 * 51_000


def test_of_skipped_chunks_only_headers_are_read_in_an_indexed_tar_as_well():
    tar = TarBuilder()
    for extension in ("jpg", "txt"):
        for number in range(40):
            tar.member(f"{number:02d}.{extension}", bytes(20_000))
    pool = Pool(uri=("unused",), chunk_rows=10)
    file = CountingFile(tar.getvalue())
    list(tar_chunks(Tape(file), pool, RowSelection(skip=frozenset({0, 10, 30}))))
    headers_twice = 2 * (80 * 512 + 1024)
    assert 10 * 40_000 < file.bytes_read < headers_twice + 10 * 40_000


def test_an_image_that_is_too_large_is_not_read():
    tar = (
        TarBuilder()
        .sample("0", image=bytes(5 * MIB), caption="c")
        .sample("1", image=b"i", caption="c")
    )
    file = CountingFile(tar.getvalue())
    list(tar_chunks(Tape(file), Pool(uri=("unused",), max_image_bytes=MIB), RowSelection()))
    assert file.bytes_read < 10_000
