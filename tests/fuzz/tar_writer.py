"""Tars of every flavour. Headers come from `tarfile`; sparse members are built by hand."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from dataclasses import dataclass, field
from random import Random

BLOCK = tarfile.BLOCKSIZE
USTAR, GNU, PAX = tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT
SPARSE = ("sparse-gnu", "sparse-0.0", "sparse-0.1", "sparse-1.0")
EMPTY_SIZE = "pax-empty-size"
"""A PAX record `size=`, which POSIX defines `as if absent`; `tarfile` reads it as 0."""
FLAVOURS = ("ustar", "gnu", "pax", "pax-records", EMPTY_SIZE, *SPARSE)
_FORMATS = {"ustar": USTAR, "gnu": GNU}


@dataclass(frozen=True, kw_only=True)
class Member:
    """A regular file of a tar with its position."""

    name: str
    data: bytes
    flavour: str
    start: int
    """Of its first header."""
    data_start: int
    stop: int
    """After its padding."""


@dataclass(kw_only=True)
class Tar:
    """A tar while it is written."""

    data: bytearray = field(default_factory=bytearray)
    members: list[Member] = field(default_factory=list)

    def file(self, name: str, data: bytes, flavour: str, rng: Random) -> None:
        """Adds a regular file; names too long for USTAR use PAX."""
        start = len(self.data)
        if flavour == "ustar" and not _fits_ustar(name):
            flavour = "pax"
        if flavour in SPARSE:
            header, stored = _sparse(name, data, flavour, rng)
        else:
            header, stored = _header(name, len(data), flavour, rng), data
        self.data += header
        data_start = len(self.data)
        self.data += padded(stored)
        self.members.append(
            Member(
                name=name,
                data=data,
                flavour=flavour,
                start=start,
                data_start=data_start,
                stop=len(self.data),
            )
        )

    def other(self, name: str, kind: bytes, rng: Random) -> None:
        """Adds a member that is not a file: a folder, a link, a device, a label."""
        info = _info(name, 0, rng)
        info.type = kind
        if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
            info.linkname = rng.choice(("a.jpg", "../" * 40 + "a.jpg"))
        self.data += info.tobuf(GNU, "utf-8", "surrogateescape")

    def global_header(self, records: dict[str, str]) -> None:
        """Adds a PAX header for all members that follow."""
        self.data += tarfile.TarInfo.create_pax_global_header(records)

    def end(self, blocks: int = 2) -> None:
        """Adds an end-of-archive mark."""
        self.data += bytes(BLOCK * blocks)


def padded(data: bytes) -> bytes:
    """`data` padded to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def signed(header: bytearray) -> bytearray:
    """A header with its correct checksum."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return header


def filled(rng: Random) -> bytes:
    """Bytes of a size around whole blocks."""
    return rng.randbytes(rng.choice((0, 1, 511, 512, 513, 1024, rng.randint(1, 9000))))


def gzipped(rng: Random, data: bytes) -> bytes:
    """`data` as one member of a gzip file, with a name or without."""
    file = io.BytesIO()
    with gzip.GzipFile(
        rng.choice(("", "x.tar")), "wb", rng.choice((1, 6, 9)), file, mtime=0
    ) as out:
        out.write(data)
    return file.getvalue()


def unpacked(data: bytes) -> bytes:
    """All gzip members at the front of `data`."""
    plain = b""
    while data[:2] == b"\x1f\x8b":
        stream = zlib.decompressobj(31)
        plain += stream.decompress(data)
        data = stream.unused_data
    return plain


def _fits_ustar(name: str) -> bool:
    try:
        tarfile.TarInfo(name).tobuf(USTAR, "utf-8", "surrogateescape")
    except ValueError:
        return False
    return True


def _info(name: str, size: int, rng: Random) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = rng.choice((0o644, 0, 0o7777))
    info.mtime = rng.choice((0, 1_700_000_000, 2**33 - 1))
    info.uid = rng.choice((0, 1000, 0o7777777))
    info.uname = rng.choice(("", "root", "x" * 31))
    return info


def _header(name: str, size: int, flavour: str, rng: Random) -> bytes:
    info = _info(name, size, rng)
    if flavour in ("pax-records", EMPTY_SIZE):
        records = _records(name, size, rng)
        if flavour == EMPTY_SIZE:
            records.append((b"size", b""))
        return pax_header(name, records) + info.tobuf(GNU, "utf-8", "surrogateescape")[-BLOCK:]
    header = info.tobuf(_FORMATS.get(flavour, PAX), "utf-8", "surrogateescape")
    last = bytearray(header[-BLOCK:])
    if flavour == "gnu" and rng.random() < 0.3:  # sizes as GNU tar writes them beyond 8 GiB
        last[124:136] = b"\x80" + size.to_bytes(11, "big")
    return header[:-BLOCK] + bytes(signed(last))


def _records(name: str, size: int, rng: Random) -> list[tuple[bytes, bytes]]:
    """PAX records that a header may have beside the path, in any order."""
    records = [(b"path", name.encode("utf-8", "surrogateescape"))]
    if "\udc80" <= max(name) <= "\udcff":
        records.insert(0, (b"hdrcharset", b"BINARY"))
    for _ in range(rng.randint(0, 3)):
        records.append(
            rng.choice(
                (
                    (b"size", b"%d" % size),
                    (b"mtime", b"-1.5"),
                    (b"mtime", b""),
                    (b"comment", b"a=b\nc"),
                    (b"SCHILY.xattr.user.x", bytes(range(1, 60))),
                    (b"LIBARCHIVE.creationtime", b"1e9"),
                    (b"gname", b""),
                )
            )
        )
    return records


def pax_header(name: str, records: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(_record(key, value) for key, value in records)
    info = tarfile.TarInfo(f"PaxHeaders/{len(name)}")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    return info.tobuf(USTAR) + padded(body)


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return b"%d" % length + rest


def _sparse(name: str, data: bytes, flavour: str, rng: Random) -> tuple[bytes, bytes]:
    """Headers of a sparse member and its stored bytes."""
    holes = _map_of(data, rng)
    stored = b"".join(data[start : start + size] for start, size in holes)
    if flavour == "sparse-gnu":
        return _old_gnu(name, len(data), holes, len(stored), rng), stored
    pairs = [(b"%d" % start, b"%d" % size) for start, size in holes]
    path = name.encode("utf-8", "surrogateescape")
    records = [
        (b"GNU.sparse.size", b"%d" % len(data)),
        (b"GNU.sparse.numblocks", b"%d" % len(holes)),
    ]
    if flavour == "sparse-0.0":
        records.append((b"path", path))
        for start, size in pairs:
            records += [(b"GNU.sparse.offset", start), (b"GNU.sparse.numbytes", size)]
    elif flavour == "sparse-0.1":
        numbers = b",".join(number for pair in pairs for number in pair)
        records += [(b"GNU.sparse.name", path), (b"GNU.sparse.map", numbers)]
    else:
        records = [
            (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", path), (b"GNU.sparse.realsize", b"%d" % len(data)),
        ]  # fmt: skip
        lines = [b"%d" % len(holes), *(number for pair in pairs for number in pair)]
        stored = padded(b"".join(line + b"\n" for line in lines)) + stored
    info = _info("GNUSparseFile.0/member", len(stored), rng)
    if flavour == "sparse-0.0":
        info.name = "member.jpg"
    return pax_header(name, records) + info.tobuf(USTAR), stored


def _map_of(data: bytes, rng: Random) -> list[tuple[int, int]]:
    """Stretches (start, size) that cover all non-zero bytes of `data`."""
    stretches: list[tuple[int, int]] = []
    step = rng.choice((64, 512, 4096))
    for start in range(0, len(data), step):
        size = min(step, len(data) - start)
        if not data[start : start + size].strip(b"\0"):
            continue
        if stretches and sum(stretches[-1]) == start and rng.random() < 0.8:
            stretches[-1] = (stretches[-1][0], stretches[-1][1] + size)
        else:
            stretches.append((start, size))
    return [*stretches, (len(data), 0)]


def _old_gnu(name: str, size: int, holes: list[tuple[int, int]], stored: int, rng: Random) -> bytes:
    """A header of type S: four stretches in it, 21 in each block after it."""
    info = _info(name, stored, rng)
    info.type = tarfile.GNUTYPE_SPARSE
    header = info.tobuf(GNU, "utf-8", "surrogateescape")
    last = bytearray(header[-BLOCK:])
    slots = [b"%011o\0%011o\0" % hole for hole in holes]
    last[386 : 386 + 96] = b"".join(slots[:4]).ljust(96, b"\0")
    last[482] = int(len(slots) > 4)
    last[483:495] = b"%011o\0" % size
    blocks = b""
    for at in range(4, len(slots), 21):
        more = int(at + 21 < len(slots))
        blocks += b"".join(slots[at : at + 21]).ljust(504, b"\0") + bytes([more]) + bytes(7)
    return header[:-BLOCK] + bytes(signed(last)) + blocks
