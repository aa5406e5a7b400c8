"""A sorted u8,u8 uid list on storage, searched by every process that needs it.

Processes map the file into memory, so that those of a node share it. A list on an object store, or
one in the other byte order, is first copied to the node's disk: once per node, under a name derived
from its size and ETag, among others.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from dfn_ray.errors import InputError, MissingFileError, StorageError
from dfn_ray.storage import filesystem, is_local, open_uri, version
from dfn_ray.uids.file_layout import RecordLayout, uid_file_layout
from dfn_ray.uids.records import UID_DTYPE, first_unsorted, uid_records
from dfn_ray.untrusted.regular_files import require_regular

SLICE = 1 << 22
"""Uids checked or copied at a time: 64 MiB."""
UNUSED_S = 7 * 86_400
"""Copies of lists that no process has opened for so long are removed when another one is made."""
_PREFIX = "dfn_ray-uids-"
_BIG_ENDIAN = UID_DTYPE.newbyteorder(">")


@dataclass(frozen=True)
class UidList:
    """A sorted u8,u8 list on storage, `.npy` or bare records."""

    uri: str
    sha256: str
    distinct: int
    """Number of distinct uids in the list."""

    def records(self) -> np.ndarray:
        """The list, memory-mapped; one on an object store is first copied to this node's disk.

        Raises InputError if it is a local file that this node does not have.
        """
        return _mapped(self.uri)

    def counts(self, uids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """The number of times that each of the uids is listed, int64."""
        records, own = self.records(), uid_records(uids)
        right = np.searchsorted(records, own, side="right")
        return right - np.searchsorted(records, own, side="left")


def open_uid_list(uri: str) -> UidList:
    """The uid list at a URI. Raises InputError if it is invalid or not sorted.

    A search of an unsorted list would miss uids.
    """
    uids = _mapped(uri)
    content, distinct = hashlib.sha256(), min(1, len(uids))
    for start in range(0, len(uids), SLICE):
        piece = np.asarray(uids[start : start + SLICE + 1])
        content.update(piece[:SLICE].tobytes())
        distinct += int((piece[1:] != piece[:-1]).sum())
        if (at := first_unsorted(piece)) is not None:
            raise InputError(
                f"{uri}: is not sorted (record {start + at} is smaller than the one before); sort "
                "it with numpy.sort and save it again"
            )
    return UidList(uri, content.hexdigest(), distinct)


@cache
def _mapped(uri: str) -> np.ndarray:
    """The records of the list at a URI, in this machine's byte order."""
    local = _local_path(uri)
    if local is None:
        return _of_file(_copied(uri), uri)
    try:
        return _of_file(local, uri)
    except FileNotFoundError:
        raise InputError(
            f"uid list {uri}: does not exist on {socket.gethostname()}; every node of a cluster "
            "reads it, so put it on shared storage or in an object store (s3://...)"
        ) from None
    except OSError as error:
        raise InputError(f"uid list {uri}: cannot be read: {error}") from None


def _local_path(uri: str) -> Path | None:
    """The path of a local file; None for one of a store."""
    return Path(filesystem(uri)._strip_protocol(uri)) if is_local(uri) else None


def _of_file(path: Path, uri: str) -> np.ndarray:
    """The records of a local file."""
    require_regular(str(path), "uid list")
    with open(path, "rb") as file:
        layout = uid_file_layout(file, os.fstat(file.fileno()).st_size, uri)
    if layout.count == 0:
        return np.empty(0, dtype=UID_DTYPE)
    if layout.big_endian:
        status = os.stat(path)
        what = f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
        path = _cached_on_disk(what, lambda: _native_pieces(path, layout))
        layout = RecordLayout(0, layout.count)
    return np.memmap(path, UID_DTYPE, mode="r", offset=layout.offset, shape=(layout.count,))


def _copied(uri: str) -> Path:
    """The complete list of an object store, in its current version, as a file of this node."""
    try:
        return _cached_on_disk(f"{uri}\0{version(uri, dated=True)}", lambda: _pieces(uri))
    except MissingFileError as error:
        raise InputError(f"uid list {error}") from error


def _cached_on_disk(what: str, pieces: Callable[[], Iterator[bytes]]) -> Path:
    """The local file with `pieces`, written by the first process; `what` identifies its content."""
    name = hashlib.sha256(f"{os.getuid()}\0{what}".encode()).hexdigest()[:32]
    path = Path(tempfile.gettempdir()) / f"{_PREFIX}{name}"
    try:
        with _exclusive(path.with_suffix(".lock")):
            if path.exists():
                os.utime(path)
            else:
                _remove_unused(path.parent)
                aside = path.with_suffix(".part")
                with open(aside, "wb") as file:
                    for piece in pieces():
                        file.write(piece)
                os.replace(aside, path)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot write a copy of a uid list on {socket.gethostname()}: {error}; set "
            "TMPDIR to a folder with enough space"
        ) from error
    return path


def _remove_unused(folder: Path) -> None:
    """Removes this user's copies that no process has opened for UNUSED_S.

    Processes that have one mapped keep its content.
    """
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):  # another process removes them as well
            status = path.stat()
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > UNUSED_S:
                path.unlink()


@contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    """Admits one process of the node at a time."""
    with open(lock, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _pieces(uri: str) -> Iterator[bytes]:
    """The bytes of a stored list. Raises StorageError unless they match the size in the store."""
    before, there = version(uri), 0
    with open_uri(uri) as file:
        while piece := file.read(SLICE * UID_DTYPE.itemsize):
            there += len(piece)
            yield piece
    if version(uri) != before or before.partition(" ")[0] not in (str(there), "None"):
        raise StorageError(
            f"{uri}: read {there:,} bytes of a file of {before}; it changed while it was copied, "
            "run again"
        )


def _native_pieces(path: Path, layout: RecordLayout) -> Iterator[bytes]:
    """The records of a big-endian file in this machine's byte order."""
    stored = np.memmap(path, _BIG_ENDIAN, mode="r", offset=layout.offset, shape=(layout.count,))
    for start in range(0, layout.count, SLICE):
        yield stored[start : start + SLICE].astype(UID_DTYPE).tobytes()
