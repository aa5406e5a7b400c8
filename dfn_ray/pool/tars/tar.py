"""A walk over a tar: its regular files, and the exact place of any damage.

The walk is our own, because `tarfile` cannot distinguish the end of an archive from a truncation,
stops at damage that concerns one member alone, and reads the bytes it skips.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dfn_ray.pool.long_names import MAX_NAME_CHARS, abbreviated_name
from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.pool.tars.sparse import (
    BrokenMapError,
    Extents,
    expanded,
    is_sparse,
    old_gnu_map,
    pax_map,
)
from dfn_ray.pool.tars.tape import Tape
from dfn_ray.pool.tars.tar_end import MAX_ZEROS, ZERO_BLOCK, TarNotes, check_end
from dfn_ray.pool.tars.tar_headers import BLOCK_BYTES, Header, parse_header, pax_records, text_of
from dfn_ray.schema import Note, ShardFault

_MAX_EXTENDED_HEADER_BYTES = 2**20
"""All extended headers before one member together: a long name, PAX records, the map of a sparse
file."""
_MAX_EXTENSION_CHARS = 16
_MAX_SIZE_DIGITS = 20  # of 2^64

_FILES = frozenset(tarfile.REGULAR_TYPES)
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
_WITHOUT_DATA = frozenset(tarfile.SUPPORTED_TYPES) - _FILES
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENDED = frozenset((*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK))


class Member(NamedTuple):
    """A regular file in a tar, or a link in place of one."""

    name: str
    size_bytes: int
    """Including the holes of a sparse file."""
    start: int
    """Position of its first stored byte."""
    end: int
    """Position after its last stored byte."""
    at: int
    """Position of its header, or of the first extended header before it."""
    extents: Extents | None = None
    """The places of the stored bytes of a sparse file."""
    is_link: bool = False
    """A second name of bytes that are stored elsewhere; it has none of its own, and is broken."""
    broken: str = ""
    """Reason why its bytes or its name cannot be trusted. A name that is too long is abbreviated to
    its ends and a digest."""

    def read(self, tape: Tape) -> bytes:
        """Its bytes; the tape must be at the first one. The caller has checked `size_bytes`."""
        if self.extents is None:
            return tape.read(self.size_bytes)
        stored = tape.read(sum(length for _, length in self.extents))
        return expanded(stored, self.size_bytes, self.extents)


def is_tar_header(block: bytes) -> bool:
    """True if `block` begins with a tar header (by its checksum) or with an empty block."""
    if len(block) < BLOCK_BYTES:
        return False
    head = block[:BLOCK_BYTES]
    return head == ZERO_BLOCK or parse_header(head) is not None


@dataclass(slots=True)
class _Extension:
    """The description of a member in the extended headers before it."""

    at: int
    size_bytes: int = 0
    records: dict[str, str] = field(default_factory=dict)
    broken: str = ""


def walk(tape: Tape, notes: TarNotes | None = None) -> Iterator[Member]:
    """The regular files and links from the tape's position on; leaves the tape at their bytes.

    The caller may read from there. Archives that were appended to each other are walked as one.
    Damage that concerns one member alone is recorded in that member. Raises ShardDamageError,
    naming the byte, where the tar is truncated or a header is broken.
    """
    notes = notes or TarNotes()
    extension: _Extension | None = None
    any_header, zeros, link_bytes = False, 0, 0
    while True:
        at = tape.position
        block = tape.read(BLOCK_BYTES)
        if block == ZERO_BLOCK:
            if extension is not None and extension.broken:
                raise ShardDamageError(
                    ShardFault.UNREADABLE, f"{extension.broken}, and no member after"
                )
            extension = None  # headers about an absent member do not describe the next one
            zeros += BLOCK_BYTES
            if zeros <= MAX_ZEROS:
                continue
            if any_header:
                start = at + BLOCK_BYTES - zeros
                raise ShardDamageError(
                    ShardFault.TRUNCATED,
                    f"only zeros from byte {start} on, as in a truncated download (or in a tar "
                    f"with records larger than {MAX_ZEROS >> 20} MiB: write it with smaller ones)",
                )
            return
        header = parse_header(block)
        if header is None and link_bytes > 0:
            # A block after a link that is not a header is content that POSIX allows hard links.
            tape.skip(-(-link_bytes // BLOCK_BYTES) * BLOCK_BYTES - BLOCK_BYTES)
            link_bytes = 0
            continue
        link_bytes = 0
        if header is None:
            check_end(tape, at, block, notes, any_header=any_header, zeros=zeros)
            return
        if zeros:
            notes.add(Note.ZEROS_BEFORE_MEMBER, at)
        any_header, zeros = True, 0
        if header.type in _EXTENDED:
            # A global header is skipped: one name or size for every member cannot be right.
            extension = extension or _Extension(at)
            _extend(tape, header, extension)
            continue
        if header.type not in _WITHOUT_DATA:
            member = _member(tape, header, extension or _Extension(at))
            if header.type in _FILES:
                yield member
            _pass(tape, member)
        elif header.type in _LINKS:
            link_bytes = header.size
            yield _link(tape, header, extension or _Extension(at))
        extension = None


def _extend(tape: Tape, header: Header, extension: _Extension) -> None:
    """Adds the content of a header that describes the next one."""
    at = tape.position
    if header.size < 0:
        raise ShardDamageError(
            ShardFault.UNREADABLE, f"an extended header of {header.size} bytes at byte {at}"
        )
    extension.size_bytes += header.size
    if extension.size_bytes > _MAX_EXTENDED_HEADER_BYTES:
        extension.broken = f"extended headers of {extension.size_bytes} bytes up to byte {at}"
        data = b""
    else:
        data = tape.read(header.size)
    tape.skip(at + header.size - tape.position)
    if tape.position < at + header.size:
        fault, why = tape.broken or (ShardFault.TRUNCATED, "ends")
        raise ShardDamageError(fault, f"{why} at byte {tape.position}, inside an extended header")
    tape.skip(-tape.position % BLOCK_BYTES)
    if header.type in _PAX:
        records, problem = pax_records(data)
        extension.records |= records
        if problem:
            extension.broken = f"{problem} at byte {at}"
    elif header.type == tarfile.GNUTYPE_LONGNAME and (name := data.partition(b"\0")[0]):
        extension.records["path"] = text_of(name)


def _member(tape: Tape, header: Header, extension: _Extension) -> Member:
    """The member of a header and the extended headers before it; moves to its first stored byte."""
    records, broken, at = extension.records, extension.broken, extension.at
    size = header.size
    if (text := records.get("size")) is not None:
        if text.isascii() and text.isdigit() and len(text) <= _MAX_SIZE_DIGITS:
            size = int(text)
        else:
            broken = broken or f"a PAX size {text[:24]!r} at byte {at}"
    if size < 0:
        raise ShardDamageError(
            ShardFault.UNREADABLE, f"a broken header at byte {at}: negative size"
        )
    start = tape.position
    if header.type == tarfile.GNUTYPE_SPARSE or (records and is_sparse(records)):
        member = _sparse_member(tape, header, extension, broken, size)
    else:
        name = records.get("path", header.name)
        member = Member(name, size, start, start + size, at, broken=broken)
    return member if len(member.name) <= MAX_NAME_CHARS else _with_short_name(member)


def _link(tape: Tape, header: Header, extension: _Extension) -> Member:
    """The link of a header and the extended headers before it. It has no bytes of its own.

    Some writers state the size of its target, and a few store those bytes again: `walk` detects
    that.
    """
    name, start = extension.records.get("path", header.name), tape.position
    broken = f"a link at byte {extension.at}"
    member = Member(name, 0, start, start, extension.at, is_link=True, broken=broken)
    return member if len(name) <= MAX_NAME_CHARS else _with_short_name(member)


def _with_short_name(member: Member) -> Member:
    """The member, marked broken, under a name of a few hundred characters.

    Members whose long names differ only in their extension still share a key.
    """
    stem, dot, extension = member.name.rpartition(".")
    if not dot or len(extension) > _MAX_EXTENSION_CHARS:
        stem, dot, extension = member.name, "", ""
    name = f"{abbreviated_name(stem.encode())}{dot}{extension}"
    broken = member.broken or f"a name of {len(member.name):,} characters at byte {member.at}"
    return member._replace(name=name, broken=broken)


def _sparse_member(
    tape: Tape, header: Header, extension: _Extension, broken: str, stored_bytes: int
) -> Member:
    """The member whose bytes are stored without the holes."""
    records, start = extension.records, tape.position
    name = records.get("GNU.sparse.name", records.get("path", header.name))
    size, extents = 0, None
    try:
        if header.type == tarfile.GNUTYPE_SPARSE:
            size, extents = old_gnu_map(tape, header.block, stored_bytes)
        else:
            size, extents = pax_map(tape, records, stored_bytes)
    except BrokenMapError as error:
        broken = broken or f"{error}, at byte {extension.at}"
    if header.type == tarfile.GNUTYPE_SPARSE:
        start = tape.position  # the blocks of the map are not part of what is stored
    end = start + stored_bytes
    return Member(name, size, tape.position, end, extension.at, extents, broken=broken)


def _pass(tape: Tape, member: Member) -> None:
    """Moves to the block after a member."""
    tape.skip(member.end - tape.position)
    if tape.position < member.end:
        fault, why = tape.broken or (ShardFault.TRUNCATED, "ends")
        raise ShardDamageError(
            fault,
            f"{why} at byte {tape.position}, {member.end - tape.position} bytes before the end of "
            f"{member.name[-200:]!r}",
            member.name,
        )
    tape.skip(-member.end % BLOCK_BYTES)
