"""One header block of a tar, and the records of a PAX header.

Not the standard library's, because only type, name and size matter here, so that garbage in the
owner or the date is harmless, and the rest of `tarfile.TarInfo.frombuf` takes half the time of a
walk.
"""

from __future__ import annotations

import tarfile
from typing import NamedTuple

BLOCK_BYTES = 512
SPARSE_MAP = "GNU.sparse.map"

_NEEDED = frozenset({b"path", b"size"})
_NEEDED_PREFIX = b"GNU.sparse."
"""Keys of the PAX records for a member's name and the place of its bytes; comments and dates are
dropped."""

_MAGIC_GNU = b"ustar  \0"
_OFFSET, _LENGTH = b"GNU.sparse.offset", b"GNU.sparse.numbytes"


class Header(NamedTuple):
    """The content of a header block."""

    type: bytes
    name: str
    size: int
    """Bytes that follow, before padding."""
    block: bytes


def parse_header(block: bytes) -> Header | None:
    """The header in a block; None if its checksum does not match, or its size is not a number."""
    if len(block) < BLOCK_BYTES:
        return None
    checksum = field_number(block[148:156])
    if checksum is None:
        return None
    if checksum != sum(block) - sum(block[148:156]) + 8 * 32:
        signed = [byte - 256 if byte > 127 else byte for byte in block]
        if checksum != sum(signed) - sum(signed[148:156]) + 8 * 32:  # as some old tars compute it
            return None
    size = field_number(block[124:136])
    if size is None:
        return None
    kind = block[156:157]
    name = block[:100].partition(b"\0")[0]
    # GNU's own headers store dates where ustar's store the front of a long name.
    if block[345] and block[257:265] != _MAGIC_GNU and kind not in tarfile.GNU_TYPES:
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    if kind == tarfile.AREGTYPE and name.endswith(b"/"):
        kind = tarfile.DIRTYPE  # as the tar of Unix V7 wrote folders
    return Header(kind, text_of(name), size, block)


def field_number(field: bytes) -> int | None:
    """A number of a header: octal digits, or GNU's base 256; None if it is neither."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big", signed=False) - (
            256 ** (len(field) - 1) if field[0] == 0xFF else 0
        )
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return None


def text_of(data: bytes) -> str:
    """A name as text. Names that are not UTF-8 are decoded as Latin-1, to stay distinct."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def pax_records(data: bytes) -> tuple[dict[str, str], str]:
    """The records `LENGTH KEY=VALUE` of a PAX header that affect name, size and holes.

    The second value describes the first broken record of any key, "" if there is none (format:
    POSIX.1-2008, pax). A record without a value counts as absent, as POSIX defines. The records
    that hold one number of a sparse map each (GNU's form 0.0) become one `SPARSE_MAP`, the form
    0.1.
    """
    records: dict[str, str] = {}
    numbers: list[tuple[bytes, bytes]] = []
    position, problem = 0, ""
    while position < len(data) and data[position]:
        digits, _, rest = data[position : position + 24].partition(b" ")
        end = position + (int(digits) if digits.isdigit() else 0)
        key, equals, value = data[position + len(digits) + 1 : end - 1].partition(b"=")
        if not rest or not equals or end > len(data) or data[end - 1 : end] != b"\n":
            problem = f"a broken PAX record {data[position : position + 24]!r}"
            break
        position = end
        if key in (_OFFSET, _LENGTH):
            numbers.append((key, value))
        elif value and (key in _NEEDED or key.startswith(_NEEDED_PREFIX)):
            records[text_of(key)] = text_of(value)
    if numbers:
        in_turn = [key for key, _ in numbers] == [_OFFSET, _LENGTH] * (len(numbers) // 2)
        joined = b",".join(value for _, value in numbers) if in_turn else b"?"
        records.setdefault(SPARSE_MAP, text_of(joined))
    return records, problem
