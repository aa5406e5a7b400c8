from __future__ import annotations

import gzip
import io
import random
import tarfile

import pytest

from dfn_ray.pool import Shard
from dfn_ray.pool.tape import Tape
from dfn_ray.pool.tar import walk
from dfn_ray.schema import ShardFault
from dfn_ray.testing.pools import TarBuilder

THREE = TarBuilder()
for _key in ("a", "b", "c"):
    THREE.sample(_key, image=_key.encode() * 700, caption=f"caption {_key}", metadata={"n": _key})


def members(data: bytes) -> list[tuple[str, bytes]]:
    tape = Tape(io.BytesIO(data))
    return [(member.name, tape.read(member.size_bytes)) for member in walk(tape)]


@pytest.mark.parametrize(
    "tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
@pytest.mark.parametrize("length", [5, 99, 100, 101, 254, 600, 3000])
def test_names_of_any_length_are_read_in_every_format(tar_format, length):
    if tar_format == tarfile.USTAR_FORMAT:
        length = min(length, 240)  # all that ustar can hold
    folder, name = "f" * (length // 2), "é" * ((length - length // 2) // 4)
    tar = TarBuilder(tar_format)
    tar.member(f"{folder}/{name}.jpg", b"image").member("short.txt", b"text")
    assert members(tar.getvalue()) == [(f"{folder}/{name}.jpg", b"image"), ("short.txt", b"text")]


def test_pax_sizes_and_paths_override_the_header():
    tar = TarBuilder(tarfile.PAX_FORMAT)
    tar.member("plain.jpg", b"12345", pax_headers={"path": "pax/ü.jpg"}).member("next.jpg", b"1")
    assert members(tar.getvalue()) == [("pax/ü.jpg", b"12345"), ("next.jpg", b"1")]
    records = b"14 size=00600\n"
    sized = TarBuilder().member("x", records, kind=tarfile.XHDTYPE).member("a.jpg", b"")
    data = sized.raw(b"y" * 600 + bytes(424)).member("b.jpg", b"2").getvalue()
    assert members(data) == [("a.jpg", b"y" * 600), ("b.jpg", b"2")]


def test_base_256_sizes_are_read():
    info = tarfile.TarInfo("a.jpg")
    info.size = 600
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (600).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    tar = TarBuilder().raw(bytes(header) + b"z" * 600 + bytes(424)).member("b.jpg", b"2")
    assert members(tar.getvalue()) == [("a.jpg", b"z" * 600), ("b.jpg", b"2")]


def test_folders_links_and_devices_are_passed():
    tar = TarBuilder()
    for kind in (
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
    ):
        tar.member("x.jpg", kind=kind)
    link = tarfile.TarInfo("z.jpg")  # some writers state the size of what a link points to
    link.type, link.size = tarfile.LNKTYPE, 100
    tar.raw(link.tobuf(tarfile.USTAR_FORMAT))
    tar.member("pax", b"13 comment=x\n", kind=tarfile.XGLTYPE).member("y.jpg", b"y")
    assert members(tar.getvalue()) == [("y.jpg", b"y")]


def test_tars_appended_to_each_other_are_read_as_one():
    first = TarBuilder().member("a.jpg", b"a").getvalue() + bytes(10_240)
    assert members(first + TarBuilder().member("b.jpg", b"b").getvalue()) == [
        ("a.jpg", b"a"),
        ("b.jpg", b"b"),
    ]
    assert members(first + b"not a header") == [("a.jpg", b"a")]


def test_what_gnu_tar_and_the_standard_library_write_is_read(tmp_path):
    expected = [(f"pool/{i:03d}.jpg", bytes([i]) * i * 100) for i in range(40)]
    for mode in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=mode) as tar:
            for name, data in expected:
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(data), 1700000000.25
                tar.addfile(info, io.BytesIO(data))
        assert members(file.getvalue()) == expected


@pytest.mark.parametrize("data", [b"", bytes(512), bytes(10_240), bytes(3 * 2**20)])
def test_a_file_of_nothing_is_empty(read, data):
    result = read(data)
    assert result.rows == []
    assert result.last.fault is ShardFault.EMPTY


def test_a_tar_without_samples_is_empty(read):
    result = read(TarBuilder().member("README", b"hello").getvalue())
    assert (result.rows, result.last.fault) == ([], ShardFault.EMPTY)


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html>404</html>",
        b"<html>" + b"x" * 5000,
        gzip.compress(b"something else" * 100, mtime=0),
        b"\x1f\x8b",
        b"PK\x03\x04" + bytes(600),
        b"\0" * 511 + b"x",
    ],
)
@pytest.mark.parametrize("form", ["auto", "webdataset"])
def test_what_is_not_a_tar_is_unreadable(read, data, form):
    result = read(data, format=form)
    assert result.rows == []
    assert result.last.fault in (ShardFault.UNREADABLE, ShardFault.TRUNCATED)
    assert form == "webdataset" or result.last.fault is ShardFault.UNREADABLE


def test_a_shard_that_is_gone_is_missing(read, put, tmp_path):
    beside = put(b"", name="00000.tar").uri.replace("00000.tar", "gone.tar")
    for uri in (str(tmp_path / "gone.tar"), beside):
        result = read(Shard(uri, "gone.tar", 10))
        assert (result.rows, result.last.fault) == ([], ShardFault.MISSING)


@pytest.mark.parametrize("fault", [ShardFault.MISSING, ShardFault.UNFINISHED])
def test_a_shard_that_the_listing_found_bad_is_not_opened(read, put, fault):
    shard = put(THREE.getvalue())
    result = read(Shard(shard.uri, shard.name, shard.size_bytes, fault))
    assert result.rows == []
    assert [chunk.fault for chunk in result.chunks] == [fault]
    assert result.last.detail


def test_a_cut_at_any_byte_costs_the_sample_it_cuts_and_names_the_byte(read):
    whole = read(THREE.getvalue()).rows
    size = len(THREE)
    for cut in [*range(0, size, 101), *range(512, size + 1, 512), size - 1, size + 511, size + 512]:
        result = read(THREE.getvalue()[:cut], format="webdataset")
        rows = result.rows
        if cut == 0:
            assert result.last.fault is ShardFault.EMPTY
            continue
        if cut < 512:
            assert result.last.fault is ShardFault.UNREADABLE
            continue
        if cut < size + 512:
            assert result.last.fault is ShardFault.TRUNCATED
            assert f"byte {cut}" in result.last.detail
        else:
            assert result.last.fault is None
        for row, good in zip(rows[:-1], whole, strict=False):
            assert row == good
        if rows and rows[-1] != whole[len(rows) - 1]:
            assert rows[-1]["reason"] == "truncated_shard"
            assert cut <= size
    assert read(THREE.getvalue(end=False)).rows == whole


def test_a_hole_of_zeros_is_not_taken_for_the_end(read):
    result = read(THREE.getvalue(end=False) + bytes(2**21))
    assert len(result.rows) == 3
    assert result.last.fault is ShardFault.TRUNCATED
    assert f"zeros from byte {len(THREE)} on" in result.last.detail


def test_a_broken_header_ends_the_shard_and_names_its_byte(read):
    data = bytearray(THREE.getvalue())
    third = data.index(b"c.jpg")
    data[third] ^= 1
    result = read(bytes(data))
    assert result.reasons == {"a": None, "b": None}
    assert result.last.fault is ShardFault.UNREADABLE
    assert f"byte {third}" in result.last.detail


@pytest.mark.parametrize(
    "bad",
    [
        TarBuilder().member("x", b"99 path=y\n", kind=tarfile.XHDTYPE),
        TarBuilder().member("x", b"path", kind=tarfile.XHDTYPE),
        TarBuilder().member("x", b"0 path=y\n", kind=tarfile.XHDTYPE),
        TarBuilder().member("x", b"10 size=x\n", kind=tarfile.XHDTYPE).member("y.jpg", b"1"),
        TarBuilder().member("x", b"11 size=-1\n", kind=tarfile.XHDTYPE).member("y.jpg", b"1"),
        TarBuilder().member("x", bytes(2**20 + 1), kind=tarfile.GNUTYPE_LONGNAME),
    ],
)
def test_broken_extended_headers_end_the_shard(read, bad):
    result = read(THREE.getvalue(end=False) + bad.getvalue())
    assert len(result.rows) == 3
    assert result.last.fault is ShardFault.UNREADABLE


def test_a_size_beyond_the_end_of_the_file_is_a_cut(read):
    info = tarfile.TarInfo("d.jpg")
    info.size = 2**40
    result = read(THREE.getvalue(end=False) + info.tobuf(tarfile.GNU_FORMAT) + b"few bytes")
    assert result.reasons == {"a": None, "b": None, "c": None, "d": "truncated_shard"}
    assert result.last.fault is ShardFault.TRUNCATED


def test_gzipped_tars_read_as_plain_ones(read):
    plain = read(THREE.getvalue())
    packed = read(gzip.compress(THREE.getvalue()))
    assert packed.rows == plain.rows
    assert packed.last.fault is None
    again = read(gzip.compress(THREE.getvalue()), chunk_rows=1, skip={0, 2})
    assert [row["key"] for row in again.rows] == ["b"]


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
