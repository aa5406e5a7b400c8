"""One way to local folders and object stores: read, list, and write so that a file is whole or absent.

Everything goes through fsspec, so `s3://`, `gs://`, `az://`, `hf://` and plain paths behave alike.
Credentials, endpoints and the like come from the environment, as each store's own tools read them.
"""

from __future__ import annotations

import os
import posixpath
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol

from dfn_ray.errors import InputError, StorageError

READ_AHEAD_BYTES = 8 * 2**20
"""Bytes fetched per range request when a file is walked front to back. One such buffer is held per reader."""

_EXTRAS = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "hf": "huggingface_hub"}
_TEMPORARY = ".writing-"


@dataclass(frozen=True)
class File:
    """A file of a store, with its size as the listing gave it."""

    uri: str
    size_bytes: int

    @property
    def name(self) -> str:
        """The last part of the URI."""
        return self.uri.rpartition("/")[2]


@dataclass(frozen=True)
class Store:
    """The files below one URI. Cheap to make, safe to send to other processes."""

    uri: str

    @cached_property
    def _fs(self) -> Any:
        return filesystem(self.uri)

    @cached_property
    def _root(self) -> str:
        return self._fs._strip_protocol(self.uri).rstrip("/")

    @property
    def address(self) -> str:
        """The URI spelled in one way: with its scheme, local paths from the root."""
        return self._fs.unstrip_protocol(self._root)

    @property
    def is_local(self) -> bool:
        """True for a folder of this machine."""
        return isinstance(self._fs, LocalFileSystem)

    def uri_of(self, name: str) -> str:
        """The URI of the file `name` of this store."""
        return f"{self.uri.rstrip('/')}/{name}"

    def child(self, folder: str) -> Store:
        """The store of a folder below this one."""
        return Store(self.uri_of(folder))

    def exists(self, name: str) -> bool:
        """True if the file `name` is there."""
        with _told(self.uri_of(name), "look up"):
            return bool(self._fs.exists(self._path(name)))

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`. Raises StorageError when it is not there."""
        with _told(self.uri_of(name), "read"):
            return self._fs.cat_file(self._path(name))

    def open(self, name: str) -> IO[bytes]:
        """The file `name`, opened for reading with seeks."""
        with _told(self.uri_of(name), "open"):
            return self._fs.open(self._path(name), "rb")

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Make `data` the content of the file `name`, whole or not at all, replacing what was there.

        On a local disk: written aside, synced, renamed. On an object store: one PUT, which is atomic.
        """
        path = self._path(name)
        with _told(self.uri_of(name), "write"):
            if not self.is_local:
                self._fs.pipe_file(path, bytes(data))
                return
            os.makedirs(posixpath.dirname(path), exist_ok=True)
            aside = posixpath.join(
                posixpath.dirname(path),
                f"{_TEMPORARY}{uuid.uuid4().hex}-{posixpath.basename(path)}",
            )
            try:
                with open(aside, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(aside, path)
            except BaseException:
                if os.path.exists(aside):
                    os.remove(aside)
                raise

    def write_stream(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Make the joined pieces the content of the file `name`, whole or not at all, without holding them all."""
        path = self._path(name)
        with _told(self.uri_of(name), "write"):
            self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
            file = self._fs.open(path, "wb", autocommit=False)
            try:
                for piece in pieces:
                    file.write(piece)
                file.close()
            except BaseException:
                file.discard()
                raise
            file.commit()

    def delete(self, name: str) -> None:
        """Remove the file `name`; nothing happens when it is not there."""
        with _told(self.uri_of(name), "delete"):
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def delete_folder(self, name: str) -> None:
        """Remove the folder `name` and all below it; nothing happens when it is not there."""
        with _told(self.uri_of(name), "delete"):
            try:
                self._fs.rm(self._path(name), recursive=True)
            except FileNotFoundError:
                return

    def list(self, folder: str = "", suffix: str = "") -> list[File]:
        """All files directly in `folder`, by name; an absent folder has none. Half-written files are not shown."""
        path = self._path(folder) if folder else self._root
        with _told(self.uri_of(folder), "list"):
            # Another process may have written since: a cached listing would hide commits.
            self._fs.invalidate_cache(path)
            try:
                entries = self._fs.ls(path, detail=True)
            except FileNotFoundError:
                return []
        names = (
            (posixpath.basename(entry["name"].rstrip("/")), entry)
            for entry in entries
            if entry["type"] == "file"
        )
        return [
            File(self.uri_of(posixpath.join(folder, name)), int(entry["size"] or 0))
            for name, entry in sorted(names, key=lambda pair: pair[0])
            if name.endswith(suffix) and not name.startswith(_TEMPORARY)
        ]

    def names(self) -> list[str]:
        """What is directly in this store, files and folders (`name/`), sorted; nothing hidden, nothing if it is absent.

        Raises InputError when the URI is that of a file.
        """
        with _told(self.uri, "list"):
            self._fs.invalidate_cache(self._root)
            try:
                entries = self._fs.ls(self._root, detail=True)
            except FileNotFoundError:
                return []
        if any(e["name"] == self._root and e["type"] == "file" and e["size"] for e in entries):
            raise InputError(f"{self.uri}: is a file; run_uri or output must be a folder, or free")
        names = (
            posixpath.basename(e["name"].rstrip("/")) + ("/" if e["type"] == "directory" else "")
            for e in entries
            if e["name"].rstrip("/") != self._root
        )
        return sorted(name for name in names if not name.startswith("."))

    def remove_leftovers(self, folder: str) -> None:
        """Remove files of `folder` that a killed writer left half-written on a local disk."""
        path = self._path(folder)
        if self.is_local and os.path.isdir(path):
            for name in os.listdir(path):
                if name.startswith(_TEMPORARY):
                    os.remove(posixpath.join(path, name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def filesystem(uri: str) -> Any:
    """The fsspec filesystem of a URI. Raises StorageError naming the package to install."""
    protocol = get_protocol(uri)
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        package = _EXTRAS.get(protocol, "the package that fsspec names")
        raise StorageError(f"{uri}: reading {protocol}:// needs {package}: {error}") from None
    except ValueError as error:
        raise StorageError(f"{uri}: no storage is known for {protocol}://: {error}") from None


def open_uri(uri: str, *, in_order: bool = True) -> IO[bytes]:
    """The file at a URI, opened for reading: front to back with bounded read-ahead, or here and there without."""
    fs = filesystem(uri)
    options: dict[str, Any] = {}
    if not _is_local(uri):
        ahead = {"block_size": READ_AHEAD_BYTES, "cache_type": "readahead"}
        options = ahead if in_order else {"cache_type": "none"}
    with _told(uri, "open"):
        return fs.open(uri, "rb", **options)


def read_uri(uri: str) -> bytes:
    """All bytes of the file at a URI."""
    with _told(uri, "read"):
        return filesystem(uri).cat_file(uri)


def files_below(folder: str) -> list[File]:
    """All files below a folder, at any depth, by name; an absent folder has none. URIs begin with `folder` as given."""
    fs = filesystem(folder)
    with _told(folder, "list"):
        root = fs._strip_protocol(folder).rstrip("/")
        fs.invalidate_cache(root)
        found = fs.find(root, detail=True)
    return [
        File(f"{folder.rstrip('/')}/{name[len(root) + 1 :]}", int(found[name]["size"] or 0))
        for name in sorted(found)
        if name != root
    ]


def folders_in(folder: str) -> list[str]:
    """Names of the folders directly in a folder, sorted, without hidden ones; an absent folder has none."""
    fs = filesystem(folder)
    with _told(folder, "list"):
        fs.invalidate_cache(fs._strip_protocol(folder).rstrip("/"))
        try:
            entries = fs.ls(folder, detail=True)
        except FileNotFoundError:
            return []
    names = (
        posixpath.basename(entry["name"].rstrip("/"))
        for entry in entries
        if entry["type"] == "directory"
    )
    return sorted(name for name in names if not name.startswith("."))


def stat(uri: str) -> File | None:
    """The file at a URI, None when a folder is there. Raises StorageError when nothing is."""
    with _told(uri, "look up"):
        info = filesystem(uri).info(uri)
    return File(uri, int(info["size"] or 0)) if info["type"] == "file" else None


def _is_local(uri: str) -> bool:
    return get_protocol(uri) in LocalFileSystem.protocol


class _told:
    """Turns a store's own exceptions into StorageError that says what was tried where."""

    def __init__(self, uri: str, verb: str) -> None:
        self.uri, self.verb = uri, verb

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FileNotFoundError):
            raise StorageError(
                f"{self.uri}: not found (tried to {self.verb} it); check the URI"
            ) from error
        if isinstance(error, PermissionError):
            raise StorageError(
                f"{self.uri}: no right to {self.verb} it: {error}; check credentials and rights"
            ) from error
        if isinstance(error, OSError):
            raise StorageError(f"{self.uri}: cannot {self.verb} it: {error}") from error
