"""Uids as numbers: 32 hex digits <-> two uint64, the record of DataComp's subset files.

A subset file is a sorted array of `np.dtype("u8,u8")`: `(int(uid[:16], 16), int(uid[16:], 16))`
(DataComp, apply_filter.py and resharder.py). A uid listed j times stands for j copies.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa

from dfn_ray.errors import InputError, shortened

UID_DTYPE = np.dtype("u8,u8")
UID_CHARS = 32

_HEX_VALUE = np.full(256, 255, dtype=np.uint8)
for _digit, _character in enumerate(b"0123456789abcdef"):
    _HEX_VALUE[_character] = _digit
_HEX_CHARACTER = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)


def uid_records(uids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The uids as `UID_DTYPE` records, shape (N,).

    Raises InputError for anything but 32 lower-case hex digits.
    """
    array = uids.combine_chunks() if isinstance(uids, pa.ChunkedArray) else uids
    if len(array) == 0:
        return np.empty(0, dtype=UID_DTYPE)
    # fixed_size_binary rejects any other length, which is the check that is needed.
    try:
        fixed = array.cast(pa.binary()).cast(pa.binary(UID_CHARS))
    except pa.ArrowInvalid as error:
        raise InputError(f"uids must have {UID_CHARS} hex digits: {error}") from None
    start = fixed.offset * UID_CHARS
    characters = np.frombuffer(fixed.buffers()[1], dtype=np.uint8)[
        start : start + len(fixed) * UID_CHARS
    ].reshape(-1, UID_CHARS)
    digits = _HEX_VALUE[characters]
    wrong = (digits == 255).any(axis=1) | fixed.is_null().to_numpy(zero_copy_only=False)
    if wrong.any():
        at = int(wrong.argmax())
        got = shortened(repr(array[at].as_py()))
        raise InputError(f"uids must be {UID_CHARS} lower-case hex digits, got {got} in row {at:,}")
    octets = (digits[:, 0::2] << 4) | digits[:, 1::2]
    words = np.ascontiguousarray(octets).view(">u8").astype(np.uint64)
    records = np.empty(len(fixed), dtype=UID_DTYPE)
    records["f0"], records["f1"] = words[:, 0], words[:, 1]
    return records


def uid_strings(records: np.ndarray) -> pa.Array:
    """The 32-digit uids of `UID_DTYPE` records."""
    words = np.stack([records["f0"], records["f1"]], axis=1).astype(">u8")
    octets = words.view(np.uint8).reshape(len(records), 16)
    characters = np.empty((len(records), UID_CHARS), dtype=np.uint8)
    characters[:, 0::2] = _HEX_CHARACTER[octets >> 4]
    characters[:, 1::2] = _HEX_CHARACTER[octets & 15]
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(UID_CHARS), len(records), [None, pa.py_buffer(np.ascontiguousarray(characters))]
    )
    return fixed.cast(pa.binary()).cast(pa.string())


def first_unsorted(records: np.ndarray) -> int | None:
    """Index of the first record that is smaller than the one before it, or None when sorted."""
    high, low = records["f0"], records["f1"]
    smaller = (high[1:] < high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] < low[:-1]))
    found = np.flatnonzero(smaller)
    return int(found[0]) + 1 if len(found) else None


def npy_header(count: int) -> bytes:
    """The first bytes of a `.npy` file of `count` uid records."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer,
        {"descr": UID_DTYPE.descr, "fortran_order": False, "shape": (count,)},
    )
    return buffer.getvalue()
