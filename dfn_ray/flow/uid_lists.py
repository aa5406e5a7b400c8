"""A sorted u8,u8 uid list on storage, searched by every process that needs it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from dfn_ray.errors import InputError
from dfn_ray.storage import read_uri, version
from dfn_ray.uids import UID_DTYPE, first_unsorted, uid_records

NPY_MAGIC = b"\x93NUMPY"
SLICE = 1 << 22
"""Uids looked at a time when a list is checked: 64 MiB."""


@dataclass(frozen=True)
class UidList:
    """A sorted u8,u8 list on storage, `.npy` or bare records."""

    uri: str
    sha256: str
    distinct: int
    """Different uids in the list."""

    def records(self) -> np.ndarray:
        """The list, memory-mapped; a list on an object store is copied to this node's disk on first use."""
        return _mapped(self.uri)

    def times(self, uids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """How often the list has each of the uids, int64."""
        records, own = self.records(), uid_records(uids)
        right = np.searchsorted(records, own, side="right")
        return right - np.searchsorted(records, own, side="left")


def open_uid_list(uri: str) -> UidList:
    """The uid list at a URI. Raises InputError when it is not sorted: a search would miss uids."""
    uids = _mapped(uri)
    content, distinct = hashlib.sha256(), min(1, len(uids))
    for start in range(0, len(uids), SLICE):
        piece = np.asarray(uids[start : start + SLICE + 1])
        content.update(piece[:SLICE].tobytes())
        distinct += int((piece[1:] != piece[:-1]).sum())
        if (at := first_unsorted(piece)) is not None:
            raise InputError(
                f"{uri}: is not sorted (record {start + at} is smaller than the one before); sort it with "
                "numpy.sort and save it again"
            )
    return UidList(uri, content.hexdigest(), distinct)


@cache
def _mapped(uri: str) -> np.ndarray:
    path = Path(uri.removeprefix("file://"))
    if "://" in str(path):
        name = hashlib.sha256(f"{uri}\0{version(uri)}".encode()).hexdigest()[:32]
        path = Path(tempfile.gettempdir()) / f"dfn_ray-uids-{name}"
        if not path.exists():
            aside = path.with_suffix(f".{os.getpid()}")
            aside.write_bytes(read_uri(uri))
            os.replace(aside, path)
    with open(path, "rb") as file:
        is_npy = file.read(len(NPY_MAGIC)) == NPY_MAGIC
    uids = np.load(path, mmap_mode="r") if is_npy else np.memmap(path, dtype=UID_DTYPE, mode="r")
    if uids.dtype != UID_DTYPE:
        raise InputError(f"{uri}: holds {uids.dtype}, need u8,u8 records")
    return uids
