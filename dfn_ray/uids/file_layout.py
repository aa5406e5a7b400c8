"""The layout of a file of uid records: `.npy` or bare. Any other kind is named and rejected.

The header of a `.npy` is parsed here and not by numpy, whose parser evaluates a header of any
length as Python and raises anything; pickled arrays, which run code, are never loaded.
"""

from __future__ import annotations

import ast
import io
import pickle
import pickletools
import warnings
import zlib
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from dfn_ray.errors import InputError, shortened
from dfn_ray.uids.records import UID_DTYPE

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000
"""As numpy's `max_header_size`: a longer header is not that of an array with two fields."""
EXPECTED = (
    "need the sorted u8,u8 records that `dfn-ray export` and DataComp write: "
    "numpy.save(path, numpy.sort(numpy.array([(int(uid[:16], 16), int(uid[16:], 16)), ...], "
    '"u8,u8")))'
)
_LOOKED_AT_BYTES = 4096
_KINDS = (
    (b"PK\x03\x04", "a zip archive, as .npz files are"),
    (b"PK\x05\x06", "an empty zip archive, as .npz files are"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
    (b"\x89HDF", "an HDF5 file"),
    (b"SQLite format 3", "an SQLite database"),
)
"""Magic numbers of at least 4 bytes: bare records begin like one of them once in 2**32 / 6, or 700
million lists."""
_GZIP = b"\x1f\x8b\x08"
_GZIP_CONTENT_BYTES = 256
_PICKLE_PROTOCOLS = (2, 3, 4, 5)
_PICKLE_STEPS = 8
_TEXT = frozenset(b"\t\n\r\f" + bytes(range(0x20, 0x7F)))
_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
"""Width of the header's length field, by version (numpy.lib.format)."""


@dataclass(frozen=True)
class RecordLayout:
    """The place of the records in a file."""

    offset: int
    """Of the first record, in bytes."""
    count: int
    big_endian: bool = False


def uid_file_layout(file: IO[bytes], size: int, uri: str) -> RecordLayout:
    """The layout of a file of `size` bytes that is open at its start.

    Accepts arrays of structs of two unsigned 8-byte integers, with any field names and in either
    byte order. Raises InputError for anything else.
    """
    head = file.read(_LOOKED_AT_BYTES)
    if not head:
        raise _refusal(uri, "is empty (0 bytes)")
    if head.startswith(MAGIC):
        file.seek(0)
        return _npy_layout(file, size, uri)
    for magic, kind in _KINDS:
        if head.startswith(magic):
            raise _refusal(uri, f"is {kind}")
    if _is_gzip(head):
        raise _refusal(uri, "is gzip-compressed")
    if _is_pickle(head, file):
        raise _refusal(uri, "is a Python pickle")
    if b"NUMPY" in head[:16] or b"'descr'" in head[:128]:
        raise _refusal(uri, f"looks like a .npy file whose first bytes are damaged ({head[:8]!r})")
    if _TEXT.issuperset(head):
        raise _refusal(uri, f"is text, beginning with {head[:40].decode()!r}")
    count, rest = divmod(size, UID_DTYPE.itemsize)
    if rest:
        raise _refusal(
            uri,
            f"is not a .npy file, and its {size:,} bytes are not a multiple of the "
            f"{UID_DTYPE.itemsize} bytes of a record",
        )
    return RecordLayout(0, count)


def _is_gzip(head: bytes) -> bool:
    """True for a gzip stream: its magic number, then content of 256 bytes, or an end with its CRC.

    One list of bare records in 2**24 begins with the magic number; of 420,000 made of it and random
    bytes one decompressed like that, a list of a single uid. That is fewer than one list in 10**12.
    Damaged gzip passes, and is rejected as not sorted.
    """
    if not head.startswith(_GZIP):
        return False
    stream = zlib.decompressobj(wbits=31)
    try:
        content = stream.decompress(head, _LOOKED_AT_BYTES)
    except zlib.error:
        return False
    return stream.eof or len(content) >= _GZIP_CONTENT_BYTES


def _is_pickle(head: bytes, file: IO[bytes]) -> bool:
    """True for a pickle: a protocol, a STOP as the last byte, and opcodes in between that parse.

    Nothing is run. One list of bare records in 2**14 begins with a protocol, one in 2**8 of these
    ends with a STOP, and the opcodes of 5 in 1,000 of these parse (420,000 tried): one list in 800
    million.
    """
    if head[:1] != b"\x80" or head[1:2] not in map(bytes, zip(_PICKLE_PROTOCOLS, strict=True)):
        return False
    file.seek(-1, 2)
    if file.read(1) != pickle.STOP:
        return False
    try:
        steps = list(islice(pickletools.genops(io.BytesIO(head)), _PICKLE_STEPS))
    except (ValueError, OverflowError):
        return False
    return len(steps) == _PICKLE_STEPS or steps[-1][0].name == "STOP"


def _npy_layout(file: IO[bytes], size: int, uri: str) -> RecordLayout:
    """The layout from the header of a `.npy`."""
    start = file.read(8)
    length_bytes = _LENGTH_BYTES.get(start[6:8])
    if length_bytes is None:
        raise _refusal(uri, f"is a .npy file of an unknown version ({start[6:8]!r})")
    length = int.from_bytes(file.read(length_bytes), "little")
    if length > MAX_HEADER_BYTES:
        raise _refusal(uri, f"is a .npy file with a header of {length:,} bytes, so not a uid list")
    header = file.read(length)
    if len(header) < length:
        raise _refusal(uri, "is a .npy file that ends in its header")
    values = _header_values(header, uri)
    big_endian = _byte_order(values["descr"], uri)
    shape = values["shape"]
    if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)):
        raise _refusal(uri, f"is a damaged .npy file, of shape {shortened(repr(shape))}")
    if len(shape) != 1:
        raise _refusal(uri, f"is an array of shape {shape}, where one dimension is needed")
    offset = len(start) + length_bytes + length
    there = size - offset
    if there != shape[0] * UID_DTYPE.itemsize:
        what = (
            "is truncated" if there < shape[0] * UID_DTYPE.itemsize else "has bytes after its end"
        )
        raise _refusal(
            uri,
            f"is a .npy file that {what}: {shape[0]:,} records by its header, which take "
            f"{shape[0] * UID_DTYPE.itemsize:,} bytes, but {there:,} bytes follow it",
        )
    return RecordLayout(offset, shape[0], big_endian)


def _header_values(header: bytes, uri: str) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, about strings in a damaged header
            values = ast.literal_eval(header.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise _refusal(
            uri, f"is a .npy file with a damaged header ({type(error).__name__})"
        ) from None
    if not isinstance(values, dict) or not {"descr", "fortran_order", "shape"} <= values.keys():
        raise _refusal(uri, f"is a .npy file with a damaged header ({shortened(repr(values))})")
    return values


def _byte_order(descr: Any, uri: str) -> bool:
    """True for big-endian records.

    Raises InputError unless the type is a struct of two unsigned 8-byte integers.
    """
    if isinstance(descr, str):
        kind = "pickled Python objects" if descr.endswith("O") else f"plain {descr!r} values"
        raise _refusal(uri, f"is an array of {kind}, where structs of two are needed")
    fields = descr if isinstance(descr, list) else []
    types = [field[1] for field in fields if isinstance(field, tuple) and len(field) == 2]
    known = [text for text in types if text in ("<u8", ">u8")]
    if not len(fields) == len(known) == 2 or known[0] != known[1]:
        raise _refusal(
            uri,
            f"is an array of {shortened(repr(descr))}, where pairs of u8 in one byte order are "
            "needed",
        )
    return known[0] == ">u8"


def _refusal(uri: str, what: str) -> InputError:
    return InputError(f"{uri}: {what}; {EXPECTED}")
