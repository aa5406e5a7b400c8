from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfn_ray.pool import Shard
from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.pool.tars.tape import Tape
from dfn_ray.pool.tars.tar import walk
from dfn_ray.schema import ShardFault
from dfn_ray.testing.sample_pools import TarBuilder

THREE = TarBuilder()
for _key in ("a", "b", "c"):
    THREE.sample(_key, image=_key.encode() * 700, caption=f"caption {_key}", metadata={"n": _key})


def members(data: bytes) -> list[tuple[str, bytes]]:
    tape = Tape(io.BytesIO(data))
    return [
        (member.name, tape.read(member.size_bytes)) for member in walk(tape) if not member.is_link
    ]


def links(data: bytes) -> list[str]:
    return [member.name for member in walk(Tape(io.BytesIO(data))) if member.is_link]


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


def test_folders_and_devices_are_passed_and_links_have_no_bytes():
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
    assert links(tar.getvalue()) == ["x.jpg", "x.jpg", "z.jpg"]


@pytest.mark.parametrize("size", [1, 512, 653])
def test_a_hard_link_that_carries_its_content_along_costs_nothing_behind_it(size):
    link = tarfile.TarInfo("l.jpg")
    link.type, link.size = tarfile.LNKTYPE, size
    content = b"x" * size + bytes(-size % 512)
    tar = TarBuilder().member("a.jpg", b"a").raw(link.tobuf(tarfile.USTAR_FORMAT) + content)
    tar.member("b.jpg", b"b")
    assert members(tar.getvalue()) == [("a.jpg", b"a"), ("b.jpg", b"b")]
    assert links(tar.getvalue()) == ["l.jpg"]
    tar.raw(b"y" * 512)  # behind anything else it is damage as before
    with pytest.raises(ShardDamageError, match="broken header"):
        members(tar.getvalue())


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
    assert result.last.bytes_read == len(data)
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
    assert [(chunk.fault, chunk.bytes_read) for chunk in result.chunks] == [
        (fault, shard.size_bytes)
    ]
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
        TarBuilder().member("x", bytes(2**20 + 1), kind=tarfile.GNUTYPE_LONGNAME),
    ],
)
def test_broken_extended_headers_without_a_member_are_a_fault_of_the_shard(read, bad):
    result = read(THREE.getvalue(end=False) + bad.getvalue())
    assert len(result.rows) == 3
    assert result.last.fault is ShardFault.UNREADABLE


def test_a_size_beyond_the_end_of_the_file_is_a_cut(read):
    info = tarfile.TarInfo("d.jpg")
    info.size = 2**40
    result = read(THREE.getvalue(end=False) + info.tobuf(tarfile.GNU_FORMAT) + b"few bytes")
    assert result.reasons == {"a": None, "b": None, "c": None, "d": "truncated_shard"}
    assert result.last.fault is ShardFault.TRUNCATED


def record(key: str, value: str | bytes) -> bytes:
    """A PAX record."""
    value = value if isinstance(value, bytes) else value.encode()
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = next(n for n in range(len(rest), len(rest) + 9) if n == len(str(n)) + len(rest))
    return str(length).encode() + rest


def extended(records: bytes, *, name: str = "d.jpg") -> TarBuilder:
    """A sample after a PAX header, and another one."""
    tar = TarBuilder().member("pax", records, kind=tarfile.XHDTYPE).member(name, b"image")
    return tar.member("d.txt", b"c").sample("next", image=b"i", caption="c")


@pytest.mark.parametrize(
    "records",
    [
        record("size", ""),
        record("path", ""),
        record("mtime", "never"),
        record("linkpath", "../../etc"),
        record("uid", "-1") + record("uname", b"\xff\xfe"),
        record("comment", b"a\0b\nc=d"),
        record("SCHILY.xattr.user.x", bytes(300)),
        record("hdrcharset", "BINARY"),
        record("size", "5") + bytes(40),
        record("path", "x.jpg") + record("path", "d.jpg"),
    ],
)
def test_pax_records_that_say_nothing_about_the_bytes_cost_nothing(read, records):
    result = read(extended(records).getvalue())
    assert result.reasons == {"d": None, "next": None}
    assert result.rows[0]["image"] == b"image"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"\xfc.jpg", "ü.jpg"),
        ("é.jpg", "é.jpg"),
        (b"a=b.jpg", "a=b.jpg"),
        (b"a\nb.jpg", "a\nb.jpg"),
    ],
)
def test_binary_pax_paths_are_names(value, name):
    data = extended(record("hdrcharset", "BINARY") + record("path", value), name="x.jpg").getvalue()
    assert members(data)[0] == (name, b"image")


def test_a_pax_path_with_a_nul_is_unsafe(read):
    assert read(extended(record("path", b"d\0.jpg")).getvalue()).reasons == {
        "d\0": "unsafe_name",
        "d": "missing_image",
        "next": None,
    }


@pytest.mark.parametrize(
    "records",
    [
        b"99 path=y\n",
        b"path",
        b"0 path=y\n",
        record("mtime", "1") + b"7 abc",
        record("mtime", "1")[:-1] + b"x",
        record("size", "x"),
        record("size", "-1"),
        record("size", "5" * 5000),
        bytes([1]) * 50,
        record("comment", "x" * (2**20 + 1)),
    ],
)
def test_a_broken_pax_header_costs_its_member_and_nothing_else(read, records):
    first = THREE.getvalue(end=False)
    result = read(first + extended(records).getvalue())
    expected = {"a": None, "b": None, "c": None, "d": "broken_member", "next": None}
    assert (result.reasons, result.last.fault) == (expected, None)
    assert read(first + extended(records).getvalue(), chunk_rows=1).reasons == expected


def test_a_broken_pax_header_of_an_extra_costs_nothing(read):
    tar = TarBuilder().member("pax", b"path", kind=tarfile.XHDTYPE).member("a.npz", b"x")
    result = read(tar.raw(THREE.getvalue()).getvalue())
    assert (set(result.reasons.values()), result.last.fault) == ({None}, None)


@pytest.mark.parametrize("key", ["path", "size", "GNU.sparse.map", "GNU.sparse.size"])
def test_global_records_about_single_members_are_passed_by(read, key):
    tar = TarBuilder().member("pax", record(key, "3"), kind=tarfile.XGLTYPE)
    result = read(tar.raw(THREE.getvalue()).getvalue())
    assert result.rows == read(THREE.getvalue()).rows


def test_junk_in_fields_that_do_not_matter_costs_nothing(read):
    data = bytearray(THREE.getvalue())
    data[100:124] = b"mode, owner and group..."
    data[136:148] = b"at some time"
    data[329:345] = b"0x0000000000000x"
    data[265:297] = b"\xff" * 32
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    assert read(bytes(data)).rows == read(THREE.getvalue()).rows


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
def test_dates_in_the_headers_of_incremental_archives_are_no_part_of_names(tmp_path):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "0.jpg").write_bytes(b"image")
    command = ["tar", "--format=gnu", "--listed-incremental=state", "-cf", "0.tar", "pool"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert members((tmp_path / "0.tar").read_bytes()) == [("pool/0.jpg", b"image")]


names = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=300
).filter(lambda name: not name.endswith("/"))
kinds = st.sampled_from(
    [
        *[tarfile.REGTYPE] * 5,
        tarfile.AREGTYPE,
        tarfile.CONTTYPE,
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
    ]
)
entries = st.lists(st.tuples(names, kinds, st.integers(0, 1500), names), max_size=8)


@settings(deadline=None, max_examples=150)
@given(
    entries=entries,
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    headers=st.dictionaries(st.sampled_from(["comment", "vendor.x"]), names, max_size=2),
    mtime=st.floats(0, 2**33),
)
def test_members_are_those_of_tarfile(entries, form, headers, mtime):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, pax_headers=headers) as tar:
        tar.addfile(tarfile.TarInfo("first"))  # tarfile takes a tar without members for none
        for number, (name, kind, size, link) in enumerate(entries):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mtime = kind, link, mtime
            info.pax_headers = headers
            info.size = size if info.isreg() else 0
            try:
                tar.addfile(info, io.BytesIO(bytes([65 + number]) * size))
            except ValueError:  # a name that ustar cannot hold
                assert form == tarfile.USTAR_FORMAT
    data = file.getvalue()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(info.name, tar.extractfile(info).read()) for info in tar if info.isreg()]
        linked = [info.name for info in tar if info.issym() or info.islnk()]
    assert members(data) == expected
    assert links(data) == linked
