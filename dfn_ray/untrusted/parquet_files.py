"""Footers of Parquet files from others, made harmless before Arrow parses them.

A footer may contain an Arrow schema (`ARROW:schema`) that declares a column of an extension type.
If a type of that name is registered in the process, Arrow builds it: Ray Data registers one whose
values are unpickled, others deserialize their parameters. So the schema is read without the names
of extensions: columns have the types in which they are stored, in every process. UUID and JSON are
Parquet's own types and are kept.

Arrow also aborts the process when it is asked for the position of an encrypted column, so those are
detected here.
"""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.untrusted.parquet_footer import FooterWalk

_HIDDEN_KEY = b"ARROW:hidden"  # for ARROW:schema
_EXTENSION_KEY, _HIDDEN_EXTENSION_KEY = b"ARROW:extension:name", b"ARROW:extension-name"
_END_BYTES = 8  # length of the footer and PAR1
_TAIL_BYTES = 1 << 16  # read at first, as Arrow does

NO_KEYS = "dfn_ray accepts no keys: write the file without encryption"


class EncryptedParquetError(pa.ArrowInvalid):
    """A file that cannot be read without a key."""


@dataclass(frozen=True, slots=True)
class Footer:
    """The description of a Parquet file in its footer."""

    metadata: pq.FileMetaData
    encrypted: frozenset[int]
    """Positions of primitive columns that are encrypted in some row group. Arrow must not be asked
    about them."""


def open_parquet(file: IO[bytes], **options: Any) -> pq.ParquetFile:
    """The Parquet file, with options of `pyarrow.parquet.ParquetFile`.

    Raises ArrowInvalid, also for encrypted columns.
    """
    footer = read_footer(file)
    if footer.encrypted:
        raise EncryptedParquetError(f"it contains encrypted columns; {NO_KEYS}")
    return pq.ParquetFile(file, metadata=footer.metadata, **options)


def read_footer(file: IO[bytes]) -> Footer:
    """The footer at the end of a file. Raises ArrowInvalid."""
    size = file.seek(0, io.SEEK_END)
    tail = _read_end(file, size, _TAIL_BYTES)
    if len(tail) < _END_BYTES:
        raise pa.ArrowInvalid(f"it has {size:,} bytes, too few for a footer")
    length = int.from_bytes(tail[-8:-4], "little") + _END_BYTES
    if tail[-4:] in (b"PAR1", b"PARE") and length > size:
        raise pa.ArrowInvalid(f"its footer takes {length:,} bytes, the file has {size:,}")
    if tail.endswith(b"PAR1") and length > len(tail):
        tail = _read_end(file, size, length)
    return parse_footer(tail[-length:])


def parse_footer(end: bytes) -> Footer:
    """The footer from the last bytes of a file, which start with it. Raises ArrowInvalid."""
    walk = _walked(end)
    plain = pa.BufferReader(b"PAR1" + _without_extensions(end, walk))
    return Footer(pq.read_metadata(plain), frozenset(walk.encrypted))


def parse_metadata(end: bytes) -> dict[bytes, bytes]:
    """The key-value metadata in a footer, from the last bytes of a file, which start with it.

    Without Arrow, which takes as long again to parse all columns. Raises ArrowInvalid.
    """
    pairs = _walked(end).pairs
    return {end[keys[-1]]: end[values[-1]] for keys, values in pairs if keys and values}


def _walked(end: bytes) -> FooterWalk:
    if end.endswith(b"PARE"):
        raise EncryptedParquetError(f"its footer is encrypted; {NO_KEYS}")
    if not end.endswith(b"PAR1"):
        raise pa.ArrowInvalid("it does not end with PAR1, as a Parquet file does")
    walk = FooterWalk(end)
    try:
        walk.walk()
    except IndexError:
        raise pa.ArrowInvalid("its footer is truncated") from None
    return walk


def _read_end(file: IO[bytes], size: int, count: int) -> bytes:
    file.seek(max(0, size - count))
    return file.read(min(size, count))


def _without_extensions(end: bytes, walk: FooterWalk) -> bytes:
    """The same bytes without the names of extension types.

    A schema that is not plain base64 is hidden.
    """
    data = bytearray(end)
    for keys, values in walk.schemas:
        for value in values:
            plain = _stored_types(end[value])
            if plain is not None:
                data[value] = plain
                continue
            for key in keys:
                data[key] = _HIDDEN_KEY
    return bytes(data)


def _stored_types(schema: bytes) -> bytes | None:
    """An Arrow schema in base64 without the names of its extension types.

    None if the schema is not plain base64.
    """
    try:
        plain = base64.b64decode(schema, validate=True)
    except binascii.Error:
        return None
    if base64.b64encode(plain) != schema:  # Arrow may read another schema in it
        return None
    return base64.b64encode(plain.replace(_EXTENSION_KEY, _HIDDEN_EXTENSION_KEY))
