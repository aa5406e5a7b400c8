"""Walking a tar: the regular files in it, and where exactly it is damaged.

The standard library parses single header blocks (83,000/s on one core); the walk is our
own, because `tarfile` cannot say whether an archive ended or was cut off, and reads what is skipped.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from dfn_ray.pool.shard import ShardDamage
from dfn_ray.pool.tape import Tape
from dfn_ray.schema import ShardFault

BLOCK_BYTES = 512
_ZERO_BLOCK = bytes(BLOCK_BYTES)

_MAX_EXTENDED_HEADER_BYTES = 2**20  # long names and PAX records; Linux paths end at 4,096 bytes
_MAX_END_BYTES = 2**20
"""Zeros allowed at the end. Tars are padded to records of 10 KiB; much more is the hole of a broken download."""

_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_WITHOUT_DATA = frozenset(tarfile.SUPPORTED_TYPES) - frozenset(tarfile.REGULAR_TYPES)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)


class Member(NamedTuple):
    """A regular file in a tar."""

    name: str
    size_bytes: int
    start: int
    """Position of its first byte."""
    at: int
    """Position of its header, or of the first extended header before it."""


def is_tar_header(block: bytes) -> bool:
    """True if `block` begins with a tar header (its checksum fits) or with an empty block."""
    if len(block) < BLOCK_BYTES:
        return False
    if block[:BLOCK_BYTES] == _ZERO_BLOCK:
        return True
    return _header(block[:BLOCK_BYTES]) is not None


def walk(tape: Tape) -> Iterator[Member]:
    """The regular files from the tape's position on; after each, the tape stands at the file's first byte.

    The caller may read from there. Archives that were appended to each other are walked as one.
    Raises ShardDamage where the tar is cut off or a header is broken, naming the byte.
    """
    override: dict[str, str] = {}
    any_header, zeros = False, 0
    member_at: int | None = None
    while True:
        at = tape.position
        block = tape.read(BLOCK_BYTES)
        if block == _ZERO_BLOCK:
            zeros += BLOCK_BYTES
            if zeros <= _MAX_END_BYTES:
                continue
            if any_header:
                raise ShardDamage(
                    ShardFault.TRUNCATED,
                    f"nothing but zeros from byte {at + BLOCK_BYTES - zeros} on",
                )
            return
        header = _header(block)
        if header is None:
            _end(tape, at, block, any_header=any_header, after_zeros=zeros > 0)
            return
        any_header, zeros = True, 0
        member_at = at if member_at is None else member_at
        if header.type in _PAX:
            override |= _pax_records(_extended(tape, header), at)
            continue
        if header.type == tarfile.GNUTYPE_LONGNAME:
            data = _extended(tape, header)
            override["path"] = _text(data.partition(b"\0")[0])
            continue
        if header.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            _extended(tape, header)
            continue
        member = _member(header, override, member_at, tape.position)
        override, member_at = {}, None
        if header.type in _WITHOUT_DATA:
            continue
        if header.type in _FILES:
            yield member
        _pass(tape, member)


def _header(block: bytes) -> tarfile.TarInfo | None:
    """The header in a block, None when its checksum does not fit."""
    try:
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except UnicodeDecodeError:
            return tarfile.TarInfo.frombuf(block, "latin-1", "strict")
    except tarfile.HeaderError:
        return None


def _text(data: bytes) -> str:
    """A name. Names that are not UTF-8 are read as Latin-1, so that they stay distinct."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _end(tape: Tape, at: int, block: bytes, *, any_header: bool, after_zeros: bool) -> None:
    """Judge the end of the walk: nothing, or something that is not a header, where one was due."""
    if tape.broken is not None:
        fault, why = tape.broken
        raise ShardDamage(fault, f"{why}, after {at} bytes of tar")
    if after_zeros and (any_header or not block):
        return  # the end-of-archive mark; what follows it is not part of the archive
    if not block and not any_header:
        return  # a file without a byte
    if len(block) < BLOCK_BYTES and any_header:
        raise ShardDamage(
            ShardFault.TRUNCATED, f"ends at byte {at + len(block)} without an end-of-archive mark"
        )
    what = "a broken header" if any_header else "no tar"
    raise ShardDamage(ShardFault.UNREADABLE, f"{what} at byte {at}: {block[:24]!r}")


def _member(header: tarfile.TarInfo, override: dict[str, str], at: int, start: int) -> Member:
    """The member that a header and the extended headers before it describe."""
    try:
        size = int(override.get("size", header.size))
    except ValueError:
        size = -1
    if size < 0:
        raise ShardDamage(ShardFault.UNREADABLE, f"a broken header at byte {at}: size below zero")
    return Member(override.get("path", header.name), size, start, at)


def _pass(tape: Tape, member: Member) -> None:
    """Go to the block after a member."""
    end = member.start + member.size_bytes
    tape.skip(end - tape.position)
    if tape.position < end:
        fault, why = tape.broken or (ShardFault.TRUNCATED, "ends")
        raise ShardDamage(
            fault,
            f"{why} at byte {tape.position}, {end - tape.position} bytes short of the end of {member.name[-200:]!r}",
            member.name,
        )
    tape.skip(-end % BLOCK_BYTES)


def _extended(tape: Tape, header: tarfile.TarInfo) -> bytes:
    """The data of a header that describes the next one."""
    at = tape.position
    if not 0 <= header.size <= _MAX_EXTENDED_HEADER_BYTES:
        raise ShardDamage(
            ShardFault.UNREADABLE, f"an extended header of {header.size} bytes at byte {at}"
        )
    data = tape.read(header.size)
    if len(data) < header.size:
        fault, why = tape.broken or (ShardFault.TRUNCATED, "ends")
        raise ShardDamage(fault, f"{why} at byte {tape.position}, inside an extended header")
    tape.skip(-tape.position % BLOCK_BYTES)
    return data


def _pax_records(data: bytes, at: int) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE` of a PAX header (POSIX.1-2008, pax)."""
    records: dict[str, str] = {}
    position = 0
    while position < len(data) and data[position]:
        digits, _, rest = data[position : position + 24].partition(b" ")
        end = position + (int(digits) if digits.isdigit() else 0)
        record = data[position + len(digits) + 1 : end - 1]
        key, equals, value = record.partition(b"=")
        if not rest or not equals or end > len(data) or data[end - 1 : end] != b"\n":
            raise ShardDamage(ShardFault.UNREADABLE, f"a broken PAX header at byte {at}")
        records[_text(key)] = _text(value)
        position = end
    return records
