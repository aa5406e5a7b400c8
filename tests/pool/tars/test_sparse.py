"""Sparse members in every form that GNU tar writes, and broken maps."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import tarfile

import pytest

from dfn_ray.pool.tars.tape import Tape
from dfn_ray.pool.tars.tar import walk
from dfn_ray.schema import ShardFault
from dfn_ray.testing.sample_pools import TarBuilder

FORMS = {
    "old": ["--format=gnu"],
    "0.0": ["--format=posix", "--sparse-version=0.0"],
    "0.1": ["--format=posix", "--sparse-version=0.1"],
    "1.0": ["--format=posix", "--sparse-version=1.0"],
}
NEXT = TarBuilder().sample("next", image=b"i", caption="c")
TWO = [(512, 512), (2048, 100)]
REAL = 4096


def members(data: bytes) -> list[tuple[str, bytes]]:
    tape = Tape(io.BytesIO(data))
    return [(member.name, member.read(tape)) for member in walk(tape)]


def of_tarfile(data: bytes) -> list[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar if info.isreg()]


def striped(path, stripes: int, distance: int, size: int) -> None:
    """Writes a file with holes between its stripes."""
    with path.open("wb") as file:
        for number in range(stripes):
            file.seek(number * distance)
            file.write(random.Random(number).randbytes(4096))
        file.truncate(size)


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize("form", FORMS)
def test_what_gnu_tar_writes_is_read_as_tarfile_reads_it(tmp_path, form):
    source = tmp_path / "source"
    source.mkdir()
    striped(source / "000.bmp", 60, 16_384, 2_000_000)
    striped(source / ("f" * 120 + ".jpg"), 3, 65_536, 200_000)
    striped(source / "hole.jpg", 0, 1, 100_000)
    striped(source / "ü.jpg", 2, 40_000, 44_096)
    (source / "000.txt").write_text("stripes")
    names = sorted(path.name for path in source.iterdir())
    tar = tmp_path / "0.tar"
    subprocess.run(["tar", "-S", *FORMS[form], "-cf", tar, *names], cwd=source, check=True)
    expected = [(name, (source / name).read_bytes()) for name in names]
    assert tar.stat().st_size < 1_000_000
    assert members(tar.read_bytes()) == expected
    # tarfile takes the placeholder for the name where the header holds a path as well
    assert [data for _, data in of_tarfile(tar.read_bytes())] == [data for _, data in expected]


def old(
    extents=TWO, *, real: int = REAL, stored: int | None = None, name: str = "s.jpg"
) -> TarBuilder:
    """A member of type `S`, with the rest of its map in extension blocks."""
    entries = [b"%011o\0%011o\0" % extent for extent in extents]
    header = bytearray(512)
    header[:100] = name.encode().ljust(100, b"\0")
    header[124:136] = b"%011o\0" % (sum(e[1] for e in extents) if stored is None else stored)
    header[156:157] = b"S"
    header[257:265] = b"ustar  \0"
    header[386:482] = b"".join(entries[:4]).ljust(96, b"\0")
    header[482] = len(entries) > 4
    header[483:495] = b"%011o\0" % real if real < 8**11 else b"\x80" + real.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header)
    for at in range(4, len(entries), 21):
        block = b"".join(entries[at : at + 21]).ljust(504, b"\0")
        data += block + bytes([at + 21 < len(entries)]) + bytes(7)
    return TarBuilder().raw(data + packed(sum(max(e[1], 0) for e in extents)))


def packed(size: int) -> bytes:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    return data + bytes(-size % 512)


def pax(records: dict[str, object], stored: bytes, name: str = "s.jpg") -> TarBuilder:
    """A member after a PAX header of these records."""
    text = b""
    for key, value in records.items():
        record = f" {key.rstrip('+')}={value}\n".encode()
        length = len(record) + 2
        length += len(str(length)) - 2 + (len(str(length)) == 1)
        length = next(n for n in range(length - 3, length + 4) if n == len(str(n)) + len(record))
        text += str(length).encode() + record
    return TarBuilder().member("pax", text, kind=tarfile.XHDTYPE).member(name, stored)


def v00(extents=TWO, real=REAL) -> TarBuilder:
    records: dict[str, object] = {"GNU.sparse.size": real, "GNU.sparse.numblocks": len(extents)}
    for number, (offset, size) in enumerate(extents):
        records |= {
            "GNU.sparse.offset" + "+" * number: offset,
            "GNU.sparse.numbytes" + "+" * number: size,
        }
    return pax(records, packed(612)[:612])


def v01(extents=TWO, real=REAL, text: str | None = None) -> TarBuilder:
    numbers = ",".join(f"{offset},{size}" for offset, size in extents)
    records = {
        "GNU.sparse.size": real,
        "GNU.sparse.name": "s.jpg",
        "GNU.sparse.map": numbers if text is None else text,
    }
    return pax(records, packed(612)[:612], "GNUSparseFile.1/s.jpg")


def v10(extents=TWO, real=REAL, text: str | None = None) -> TarBuilder:
    lines = f"{len(extents)}\n" + "".join(f"{offset}\n{size}\n" for offset, size in extents)
    head = (lines if text is None else text).encode()
    records = {
        "GNU.sparse.major": 1,
        "GNU.sparse.minor": 0,
        "GNU.sparse.name": "s.jpg",
        "GNU.sparse.realsize": real,
    }
    stored = head + bytes(-len(head) % 512) + packed(612)[:612]
    return pax(records, stored, "GNUSparseFile.1/s.jpg")


MAKERS = {"old": old, "0.0": v00, "0.1": v01, "1.0": v10}


@pytest.mark.parametrize("form", MAKERS)
@pytest.mark.parametrize(
    "extents",
    [
        TWO,
        [(0, 612)],
        [(3484, 612)],
        [(0, 300), (300, 312), (4096, 0)],
        [(i * 5, 1) for i in range(612)],
    ],
    ids=["two", "front", "end", "touching", "many"],
)
def test_maps_of_every_form_are_expanded_as_tarfile_does(form, extents):
    data = MAKERS[form](extents).raw(NEXT.getvalue()).getvalue()
    found = members(data)
    assert found == of_tarfile(data)
    expected = bytearray(REAL)
    at = 0
    for offset, size in extents:
        expected[offset : offset + size] = packed(612)[at : at + size]
        at += size
    assert found[0] == ("s.jpg", bytes(expected))
    assert [name for name, _ in found] == ["s.jpg", "next.jpg", "next.txt"]


BROKEN = {
    "overlapping": [(0, 512), (100, 100)],
    "going back": [(2048, 512), (0, 100)],
    "beyond the end": [(0, 512), (4090, 100)],
}


@pytest.mark.parametrize("form", MAKERS)
@pytest.mark.parametrize("extents", BROKEN.values(), ids=BROKEN)
def test_a_broken_map_costs_its_member_and_nothing_else(read, form, extents):
    tar = TarBuilder().sample("first", image=b"i", caption="c")
    tar.raw(MAKERS[form](extents).getvalue(end=False)).member("s.txt", b"c")
    result = read(tar.raw(NEXT.getvalue()).getvalue())
    assert result.reasons == {"first": None, "s": "broken_member", "next": None}
    assert result.last.fault is None


@pytest.mark.parametrize(
    "tar",
    [
        v01(text="0,x"),
        v01(text="0"),
        v01(text="0," + "9" * 5000),
        v01(real="x"),
        v01(real="-5"),
        v10(text="x\n"),
        v10(text="2\n0\n"),
        v10(text="9" * 30 + "\n"),
        v10(text="99999999\n" + "0\n" * 100),
        v10(text="no line at all" * 100),
        v10(real=""),
        old(stored=100),
        old(real=-1),
        old([(0, 100), (200, -100)]),
        pax({"GNU.sparse.major": 7, "GNU.sparse.minor": 0, "GNU.sparse.realsize": 1}, b"x"),
    ],
)
def test_maps_that_are_no_maps_cost_their_member(read, tar):
    data = tar.member("s.txt", b"c").raw(NEXT.getvalue()).getvalue()
    result = read(data)
    if (
        result.reasons.get("s") is not None
    ):  # where the size itself lies, the next header is not found
        assert result.reasons["s"] == "broken_member"
    if "next" not in result.reasons:
        assert result.last.fault is ShardFault.UNREADABLE


@pytest.mark.parametrize(
    "tar", [old(real=2**62), v00(real=2**62), v01(real=2**62), v10(real=2**62)]
)
def test_a_sparse_member_is_as_large_as_it_says_before_anything_is_expanded(read, tar):
    tar.member("s.txt", b"c").raw(NEXT.getvalue())
    result = read(tar.getvalue())
    assert result.reasons == {"s": "image_too_large", "next": None}


@pytest.mark.parametrize("form", MAKERS)
def test_a_cut_inside_a_sparse_member_is_a_truncated_shard(read, form):
    data = MAKERS[form]([(i * 5, 1) for i in range(612)]).getvalue(end=False)
    for cut in range(600, len(data), 512):
        result = read(data[:cut])
        assert result.last.fault is ShardFault.TRUNCATED
        assert set(result.reasons.values()) <= {"truncated_shard", "broken_member"}


def test_sparse_members_of_a_tar_sorted_by_extension_are_read(read):
    tar = TarBuilder()
    for number in range(6):
        tar.raw(old(name=f"{number}.jpg").getvalue(end=False))
    for number in range(6):
        tar.member(f"{number}.txt", b"c")
    result = read(tar.getvalue(), chunk_rows=2)
    images = {row["image"] for row in result.rows}
    assert images == {members(old().getvalue())[0][1]}
    assert len(result.rows) == 6
