"""Tars written to take memory or time: each costs one sample or one shard, in bounded memory."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Callable

import pytest

from dfn_ray.config import Pool
from dfn_ray.pool import iter_chunks
from dfn_ray.pool.members import CaptionMembers, member_role, root_of, shorter_keys
from dfn_ray.pool.tars import closed_keys
from dfn_ray.pool.tars.pieces import Pieces
from dfn_ray.pool.tars.tape import GzipTape, Tape
from dfn_ray.pool.tars.tar import walk
from dfn_ray.schema import Reason, ShardFault
from dfn_ray.testing.sample_pools import TarBuilder

MIB = 2**20
GOOD = TarBuilder().sample("good", image=b"image", caption="c")
LAST = TarBuilder().sample("last", image=b"image", caption="c")


def record(key: str, value: str) -> bytes:
    """A PAX record."""
    rest = f" {key}={value}\n".encode()
    length = next(n for n in range(len(rest), len(rest) + 9) if n == len(str(n)) + len(rest))
    return str(length).encode() + rest


def named(tar: TarBuilder, name: str, data: bytes = b"image") -> TarBuilder:
    """Adds a member under a name of any length."""
    return tar.member("pax", record("path", name), kind=tarfile.XHDTYPE).member("x", data)


def between(odd: TarBuilder) -> bytes:
    """An odd part between two valid samples."""
    return GOOD.getvalue(end=False) + odd.getvalue(end=False) + LAST.getvalue()


def peak_bytes(work: Callable[[], object]) -> int:
    """Peak memory use of `work`."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_shorter_keys_are_those_before_each_dot_of_the_file_name():
    assert list(shorter_keys("x.y/a.b.c")) == ["x.y/a", "x.y/a.b"]
    assert list(shorter_keys("x.y\\a.b")) == ["x.y\\a"]
    assert list(shorter_keys("x.y/a")) == []
    assert [root_of(key) for key in ("x.y/a.b.c", "x.y/a", "a")] == ["x.y/a", "x.y/a", "a"]


def test_the_shorter_keys_of_a_name_of_dots_take_memory_in_proportion_to_it():
    key = "a" + ".b" * 20_000
    assert peak_bytes(lambda: set(shorter_keys(key))) < 4 * len(key)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "stem", ["a" + ".b" * 20_000, "." * 20_000, "d/" * 5000 + "a.b", "é" * 5000]
)
def test_a_name_beyond_the_longest_path_costs_its_sample(read, stem, packed):
    odd = named(named(TarBuilder(), f"{stem}.jpg"), f"{stem}.txt", b"caption")
    data = gzip.compress(between(odd), mtime=0) if packed else between(odd)
    result = read(data)
    reasons = result.reasons
    assert (reasons.pop("good"), reasons.pop("last")) == (None, None)
    assert set(reasons.values()) <= {Reason.BROKEN_MEMBER}  # hidden files are no samples
    assert len(reasons) == (0 if stem.startswith(".") else 1)
    assert all(len(key) < 512 for key in reasons)
    assert result.last.fault is None


def test_names_of_the_longest_path_are_read_and_told_apart_where_they_are_longer(read):
    names = ["n" * 4092, "n" * 4200 + "1" + "n" * 4200, "n" * 4200 + "2" + "n" * 4200]
    tar = TarBuilder()
    for stem in names:
        named(named(tar, f"{stem}.jpg"), f"{stem}.txt", b"caption")
    reasons = list(read(tar.getvalue()).reasons.values())
    assert reasons == [None, Reason.BROKEN_MEMBER, Reason.BROKEN_MEMBER]


def test_dotted_names_ahead_are_compared_without_their_shorter_keys():
    """The look-ahead covers 32 members, and a name may contain thousands of dots."""
    tar = TarBuilder()
    for number in range(40):
        named(tar, f"a{'.b' * 1900}.{number}.jpg")
    pieces = Pieces(Tape(io.BytesIO(tar.getvalue())), Pool(uri=("x",)))
    first = next(iter(pieces))
    assert peak_bytes(lambda: list(pieces.following(first, keep=False))) < MIB
    part = member_role(first.member.name, CaptionMembers())
    assert part is not None
    assert len(list(shorter_keys(part.key))) == 64


def test_keys_of_chunks_handed_out_take_memory_by_their_number_and_not_their_length(put):
    tar = TarBuilder()
    for number in range(2000):
        named(tar, f"{'n' * 4000}{number}.jpg", b"")
    shard = put(gzip.compress(tar.getvalue(), mtime=0), "0.tar.gz")
    pool = Pool(uri=(shard.uri,), chunk_rows=8)
    rows = []

    def read() -> None:
        rows.extend(chunk.rows for chunk, _ in iter_chunks(shard, pool))

    assert peak_bytes(read) < 4 * MIB
    assert sum(rows) == 2000


@pytest.mark.parametrize("packed", [True, False])
def test_a_compressed_shard_of_more_samples_than_any_real_one_ends_there(read, monkeypatch, packed):
    monkeypatch.setattr(closed_keys, "MAX_SAMPLES", 20)
    tar = TarBuilder()
    for number in range(100):
        tar.sample(f"{number:03d}", image=b"i", caption="c")
    data = gzip.compress(tar.getvalue(), mtime=0) if packed else tar.getvalue()
    result = read(data, chunk_rows=4)
    assert set(result.reasons.values()) == {None}
    assert len(result.rows) == (24 if packed else 100)
    assert result.last.fault is (ShardFault.UNREADABLE if packed else None)
    assert "more than 20 samples" in result.last.detail or not packed


def test_extended_headers_before_one_member_are_limited_together(read):
    comment = record("comment", "x" * 700_000)
    once, twice = TarBuilder(), TarBuilder()
    once.member("pax", comment, kind=tarfile.XHDTYPE).sample("odd", image=b"i", caption="c")
    for _ in range(2):
        twice.member("pax", comment, kind=tarfile.XHDTYPE)
    twice.sample("odd", image=b"i", caption="c")
    assert read(between(once)).reasons == {"good": None, "odd": None, "last": None}
    result = read(between(twice))
    assert result.reasons == {"good": None, "odd": Reason.BROKEN_MEMBER, "last": None}
    assert result.last.fault is None


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_extended_headers_that_pile_up_are_not_held(kind):
    tar = TarBuilder()
    for number in range(40):
        records = b"".join(record(f"k{number}.{n}", "x" * 1000) for n in range(900))
        tar.member("pax", records, kind=kind)
    data = gzip.compress(tar.member("a.jpg", b"image").getvalue(), 1, mtime=0)
    names = []

    def read() -> None:
        names.extend(member.name[:5] for member in walk(GzipTape(io.BytesIO(data))))

    assert peak_bytes(read) < 8 * MIB
    assert len(names) == 1


def sparse(tar: TarBuilder, name: str, stretches: int) -> TarBuilder:
    """Adds a sparse file of single bytes; its map takes twenty times the memory of the file."""
    numbers = ",".join(f"{1000 + 2 * at},1" for at in range(stretches))
    records = (
        record("GNU.sparse.size", str(1000 + 2 * stretches))
        + record("GNU.sparse.map", numbers)
        + record("path", name)
    )
    return tar.member("pax", records, kind=tarfile.XHDTYPE).member("x", b"c" * stretches)


STRETCHES = 6000


@pytest.mark.parametrize("order", ["captions that wait", "an index", "images ahead"])
def test_maps_of_sparse_files_are_not_held(put, order):
    tar = TarBuilder()
    for number in range(30):
        name = {
            "captions that wait": f"x{number}.y.txt",
            "an index": f"{number}.txt",
            "images ahead": f"a.{number}.jpg",
        }[order]
        sparse(tar, name, STRETCHES)
    if order == "an index":
        images = TarBuilder()
        for number in range(30):
            images.member(f"{number}.jpg", b"image")
        tar = images.raw(tar.getvalue(end=False))
    shard = put(tar.getvalue())
    pool = Pool(uri=(shard.uri,), chunk_rows=30 if order == "images ahead" else 4)
    reasons = []

    def read() -> None:
        for _, table in iter_chunks(shard, pool):
            reasons.extend(table.column("reason").to_pylist())

    assert peak_bytes(read) < 7 * MIB
    assert reasons == {"captions that wait": [], "an index": [None] * 30}.get(
        order, ["missing_caption"] * 30
    )
