"""The files below one URI: read, list, delete, and write so that a file is whole or absent."""

from __future__ import annotations

import os
import posixpath
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

from dfn_ray.errors import InputError
from dfn_ray.storage.filesystems import filesystem, is_local, storage_errors

_TEMPORARY = ".writing-"


@dataclass(frozen=True)
class File:
    """A file of a store, with its size as the listing gave it."""

    uri: str
    size_bytes: int
    version: str | None = None
    """The store's version of the content (an ETag); None where it has none."""

    @property
    def name(self) -> str:
        """The last part of the URI."""
        return self.uri.rpartition("/")[2]


@dataclass(frozen=True)
class Store:
    """The files below one URI. Cheap to make, safe to send to other processes."""

    uri: str

    @property
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
        return is_local(self.uri)

    def uri_of(self, name: str) -> str:
        """The URI of the file `name` of this store."""
        return f"{self.uri.rstrip('/')}/{name}"

    def child(self, folder: str) -> Store:
        """The store of a folder below this one."""
        return Store(self.uri_of(folder))

    def exists(self, name: str) -> bool:
        """True if the file `name` is there."""
        with storage_errors(self.uri_of(name), "look up"):
            return bool(self._fs.exists(self._path(name)))

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`. Raises StorageError when it is not there."""
        with storage_errors(self.uri_of(name), "read"):
            return self._fs.cat_file(self._path(name))

    def open(self, name: str) -> IO[bytes]:
        """The file `name`, opened for reading with seeks."""
        with storage_errors(self.uri_of(name), "open"):
            return self._fs.open(self._path(name), "rb")

    def write(self, name: str, data: bytes) -> None:
        """Make `data` the content of the file `name`, whole or not at all, replacing what was there.

        On a local disk: written aside, synced, renamed. On an object store: one PUT, or above 100 MiB the parts of
        one upload, which becomes the object when it is completed. Done twice it is done once, so that a PUT whose
        answer was lost is simply sent again.
        """
        path = self._path(name)
        with storage_errors(self.uri_of(name), "write"):
            if not self.is_local:
                self._fs.pipe_file(path, data)
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
        with storage_errors(self.uri_of(name), "write"):
            if self.is_local:  # elsewhere s3fs would make the bucket that a typing error names
                os.makedirs(posixpath.dirname(path), exist_ok=True)
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
        with storage_errors(self.uri_of(name), "delete"):
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def delete_folder(self, name: str) -> None:
        """Remove the folder `name` and all below it; nothing happens when it is not there."""
        with storage_errors(self.uri_of(name), "delete"):
            try:
                self._fs.rm(self._path(name), recursive=True)
            except FileNotFoundError:
                return

    def list(self, folder: str = "", suffix: str = "") -> list[File]:
        """All files directly in `folder`, by name; an absent folder has none. Half-written files are not shown."""
        path = self._path(folder) if folder else self._root
        with storage_errors(self.uri_of(folder), "list"):
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
        with storage_errors(self.uri, "list"):
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
