"""Tars in gzip: read like plain ones up to the damage, whatever follows the archive."""

from __future__ import annotations

import gzip
import io
import random
import zlib

import pytest

from dfn_ray.pool.tars.tape import GzipTape
from dfn_ray.schema import ShardFault
from dfn_ray.testing.sample_pools import TarBuilder

THREE = TarBuilder()
for _key in ("a", "b", "c"):
    THREE.sample(_key, image=_key.encode() * 700, caption=f"caption {_key}", metadata={"n": _key})

JUNK = [
    b"\r\n",
    b"\n",
    b"<html>" * 99,
    b"\x1f",
    b"\x1f\x8b",
    b"\x1f\x8b\x08junk" * 9,
    gzip.compress(b"x" * 2000, mtime=0)[:-9],
    bytes(700) + b"x",
]


def test_gzipped_tars_read_as_plain_ones(read):
    plain = read(THREE.getvalue())
    packed = read(gzip.compress(THREE.getvalue()))
    assert packed.rows == plain.rows
    assert packed.last.fault is None
    again = read(gzip.compress(THREE.getvalue()), chunk_rows=1, skip={0, 2}, last=2)
    assert [row["key"] for row in again.rows] == ["b"]


def test_a_broken_gzip_of_a_few_kilobytes_keeps_the_samples_before_the_damage(read):
    tar = TarBuilder()
    for number in range(3):
        tar.sample(f"{number}", image=random.Random(number).randbytes(2000), caption="x")
    packed = bytearray(gzip.compress(tar.getvalue(), 0))  # stored as it is: the damage has a place
    packed[len(packed) // 2] ^= 0xFF
    result = read(bytes(packed))
    assert result.reasons["0"] is None
    broken = bytearray(gzip.compress(tar.getvalue()))
    broken[-1800:-1700] = bytes(100)
    result = read(bytes(broken))
    assert result.reasons["0"] is None
    assert result.last.fault is ShardFault.UNREADABLE


def test_a_cut_gzip_keeps_the_samples_before_the_cut(read):
    tar = TarBuilder()
    for number in range(20):
        tar.sample(f"{number:02d}", image=random.Random(number).randbytes(3000), caption="x")
    packed = gzip.compress(tar.getvalue())
    for cut in (len(packed) // 2, len(packed) - 4):
        result = read(packed[:cut])
        assert result.last.fault is ShardFault.TRUNCATED
        assert "gzip" in result.last.detail
        assert len(result.rows) >= 9
        assert set(list(result.reasons.values())[:-1]) == {None}
    broken = bytearray(packed)
    broken[len(packed) // 2 : len(packed) // 2 + 50] = bytes(50)
    result = read(bytes(broken))
    assert len(result.rows) >= 8
    assert result.last.fault is ShardFault.UNREADABLE


@pytest.mark.parametrize("junk", JUNK)
def test_bytes_after_an_ended_archive_are_no_fault(read, junk):
    plain = read(THREE.getvalue())
    result = read(gzip.compress(THREE.getvalue()) + junk)
    assert (result.rows, result.last.fault) == (plain.rows, None)


@pytest.mark.parametrize("junk", JUNK)
def test_bytes_after_an_archive_without_its_end_are_a_fault(read, junk):
    result = read(gzip.compress(THREE.getvalue(end=False)) + junk)
    assert result.rows[:2] == read(THREE.getvalue()).rows[:2]
    assert result.last.fault in (ShardFault.UNREADABLE, ShardFault.TRUNCATED)


def test_a_checksum_that_does_not_fit_is_a_fault_though_the_archive_ended(read):
    packed = bytearray(gzip.compress(THREE.getvalue()))
    packed[-8] ^= 1
    result = read(bytes(packed))
    assert len(result.rows) == 3
    assert result.last.fault is ShardFault.UNREADABLE
    assert "incorrect data check" in result.last.detail


@pytest.mark.parametrize("cut", [1, 300, 512, 2000, 5000])
@pytest.mark.parametrize("between", [b"", bytes(3), bytes(200_000)])
def test_streams_that_follow_each_other_are_one(read, cut, between):
    data = THREE.getvalue()
    packed = gzip.compress(data[:cut]) + between + gzip.compress(data[cut:]) + bytes(512)
    result = read(packed)
    assert (result.rows, result.last.fault) == (read(data).rows, None)


def test_an_archive_in_a_second_stream_is_read_and_its_damage_is_a_fault(read):
    second = gzip.compress(TarBuilder().sample("d", image=b"i", caption="c").getvalue())
    whole = read(gzip.compress(THREE.getvalue()) + second)
    assert [row["key"] for row in whole.rows] == ["a", "b", "c", "d"]
    assert whole.last.fault is None
    cut = read(gzip.compress(THREE.getvalue()) + second[:-20])
    assert cut.last.fault is ShardFault.TRUNCATED


@pytest.mark.parametrize("at", range(20, 30_000, 2999))
def test_all_that_stands_before_the_damage_is_given(at):
    data = random.Random(0).randbytes(30_000).hex().encode()
    packed = bytearray(gzip.compress(data, 1, mtime=0))
    packed[at : at + 60] = bytes(60)
    tape = GzipTape(io.BytesIO(bytes(packed)))
    given = tape.read(100_000)
    assert tape.broken is not None
    stream, expected = zlib.decompressobj(wbits=31), b""
    for number in range(len(packed)):  # byte by byte: the most that zlib can give
        try:
            expected += stream.decompress(packed[number : number + 1])
        except zlib.error:
            break
    assert given[: len(expected) - 258] == expected[:-258]  # one deflate match has up to 258
    assert len(expected) > at - 100


def test_a_gzip_that_is_cut_before_it_shows_what_it_holds_ends_early(read):
    """Cut at the magic number, in the stream's header, and before the archive's first block."""
    packed = gzip.compress(random.Random(0).randbytes(511), 0)
    for cut in (2, 3, 9, 10, 11, 100, len(packed) - 1):
        last = read(packed[:cut]).last
        found = last.fault, last.detail
        assert found == (ShardFault.UNREADABLE, "the gzip stream is truncated"), cut
        assert "the gzip stream is truncated" in read(packed[:cut], format="webdataset").last.detail


@pytest.mark.parametrize(
    ("at", "value", "what"),
    [
        (2, 9, "unknown compression method"),
        (3, 0xE0, "unknown header flags"),
        (10, 0xFF, "invalid"),
    ],
)
def test_a_gzip_that_is_damaged_before_it_shows_what_it_holds_is_broken_gzip(read, at, value, what):
    packed = bytearray(gzip.compress(THREE.getvalue()))
    packed[at] = value
    last = read(bytes(packed)).last
    assert last.fault is ShardFault.UNREADABLE
    assert last.detail.startswith("the gzip stream is broken: ")
    assert what in last.detail


@pytest.mark.parametrize("text", [b"", b"some text", b"some text" * 999])
def test_a_whole_gzip_of_something_else_holds_no_tar(read, text):
    last = read(gzip.compress(text)).last
    assert (last.fault, last.detail) == (ShardFault.UNREADABLE, "gzip that contains no tar")
