"""The files below one URI: read, list, delete, and write atomically: a file is whole or absent."""

from __future__ import annotations

import os
import posixpath
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import IO, Any

from dfn_ray.errors import InputError, MissingFileError
from dfn_ray.storage.causes import ConditionFailedError
from dfn_ray.storage.exclusive import locked, rename_if_free, sync_folder
from dfn_ray.storage.filesystems import filesystem, is_local, is_s3, storage_errors
from dfn_ray.uris import normalised

_TEMPORARY = ".writing-"
_LEFTOVER = re.compile(rf"{re.escape(_TEMPORARY)}(\d+)-")
_NO_VERSION = "0" * 32
"""An ETag that matches no content."""


@dataclass(frozen=True)
class File:
    """A file of a store, with its size from the listing."""

    uri: str
    size_bytes: int
    version: str | None = None
    """The store's version of the content (ETag); None without one."""

    @property
    def name(self) -> str:
        """The last part of the URI."""
        return self.uri.rpartition("/")[2]


def version_in(info: Mapping[str, Any]) -> str | None:
    """The version (ETag) in a store's file information; None without one."""
    etag = info.get("ETag") or info.get("etag")
    return plain_etag(str(etag)) if etag else None


def plain_etag(etag: str) -> str:
    """An ETag without quotes: S3's responses have them, s3fs's listings may not."""
    return etag.removeprefix("W/").strip('"')


@dataclass(frozen=True)
class Store:
    """The files below one URI. Cheap to create, safe to send to other processes."""

    uri: str
    writer: int = field(default=0, compare=False)
    """Number of the writer, which is part of the names of half-written files; see
    `remove_leftovers`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", normalised(self.uri))

    @property
    def _fs(self) -> Any:
        return filesystem(self.uri)

    @cached_property
    def _root(self) -> str:
        return self._fs._strip_protocol(self.uri).rstrip("/")

    @property
    def address(self) -> str:
        """The URI in canonical form: with its scheme, local paths absolute."""
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
        return replace(self, uri=self.uri_of(folder))

    def exists(self, name: str) -> bool:
        """True if the file `name` exists."""
        # Not the client's own `exists`, which reports most failures as an absent file.
        try:
            with storage_errors(self.uri_of(name), "access"):
                if is_s3(self.uri):
                    self._fs.require_object(self._path(name))
                else:
                    self._fs.info(self._path(name))
        except MissingFileError:
            return False
        return True

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`. Raises MissingFileError if it does not exist."""
        with storage_errors(self.uri_of(name), "read"):
            return self._fs.cat_file(self._path(name))

    def open(self, name: str, *, head_bytes: int = 0, tail_bytes: int = 0) -> IO[bytes]:
        """Opens the file `name` for random reads, without read-ahead.

        On S3, `head_bytes` or `tail_bytes`, its first or last bytes, are read by the request that
        opens it, whose response also gives the size: the footer of a Parquet file, or a small file
        as a whole, takes one request instead of two or more.
        """
        options = {} if self.is_local else {"cache_type": "none"}
        with storage_errors(self.uri_of(name), "open"):
            if (head_bytes or tail_bytes) and is_s3(self.uri):
                return self._fs.open_with_end(self._path(name), head_bytes, tail_bytes)
            return self._fs.open(self._path(name), "rb", **options)

    def write(self, name: str, data: bytes) -> None:
        """Writes the file `name` atomically, replacing its content.

        On a local disk: written to a temporary file, synced, renamed. On an object store: one PUT,
        or above 100 MiB a multipart upload, which becomes the object when it is completed. The
        operation is idempotent, so a PUT whose response was lost is sent again.
        """
        with storage_errors(self.uri_of(name), "write"):
            if self.is_local:
                with self._temporary_file(name, [data]) as temporary:
                    os.replace(temporary, self._path(name))
            else:
                self._fs.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Writes the file `name` unless it exists; True if it has this content now.

        Of several concurrent writers one succeeds, by the store's own means: on a disk a hard link
        or its closest equivalent (`rename_if_free`), on S3 IfNoneMatch (gs and az: their clients'
        preconditions). With a store that ignores the condition the last writer wins: see
        `honours_conditions`.
        """
        with storage_errors(self.uri_of(name), "create"):
            if self._created(name, data):
                return True
        # Also true if the response to our own write was lost and it was sent again.
        return self.read(name) == data

    def replace(self, name: str, data: bytes, *, before: bytes | None) -> bool:
        """Replaces the file `name` if its content is `before` (None: if absent); True if done.

        On a disk under a lock that every `replace` takes; on S3 under IfMatch. On other stores
        another write may come between the check and the write.
        """
        if before is None:
            return self.create(name, data)
        with storage_errors(self.uri_of(name), "replace"):
            if self.is_local:
                with locked(self._root):
                    done = self._content(name) == before
                    if done:
                        with self._temporary_file(name, [data]) as temporary:
                            os.replace(temporary, self._path(name))
            else:
                done = self._replaced(name, data, before)
        # Also true if the response to our own write was lost and it was sent again.
        return done or self._content(name) == data

    def honours_conditions(self, name: str) -> bool:
        """True if the store enforces conditional writes.

        It must refuse to create the existing file `name` and, on S3, to replace another version of
        it. Both are tried with the file's own content.
        """
        data = self.read(name)
        with storage_errors(self.uri_of(name), "create"):
            if self._created(name, data):
                return False
            return not is_s3(self.uri) or not self._put_over(name, data, _NO_VERSION)

    def _created(self, name: str, data: bytes) -> bool:
        """False if the file exists already."""
        path = self._path(name)
        if self.is_local:
            with self._temporary_file(name, [data]) as temporary:
                return rename_if_free(temporary, path)
        try:
            self._fs.pipe_file(path, data, mode="create")
        except (ConditionFailedError, FileExistsError):
            return False
        return True

    def _replaced(self, name: str, data: bytes, before: bytes) -> bool:
        """False if the file is absent or its content is not `before`."""
        try:
            version = version_in(self._fs.info(self._path(name)))
            if self._fs.cat_file(self._path(name)) != before:
                return False
        except FileNotFoundError:
            return False
        return self._put_over(name, data, version)

    def _put_over(self, name: str, data: bytes, version: str | None) -> bool:
        """False if the file has another version; checked on S3 only."""
        match = {"IfMatch": f'"{version}"'} if version and is_s3(self.uri) else {}
        try:
            self._fs.pipe_file(self._path(name), data, **match)
        except (ConditionFailedError, FileNotFoundError):
            return False
        return True

    def _content(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except MissingFileError:
            return None

    def write_stream(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Writes the joined pieces to the file `name` atomically, without holding all of them."""
        with storage_errors(self.uri_of(name), "write"):
            if self.is_local:
                # Not through the client, which would copy from the system's temporary folder.
                with self._temporary_file(name, pieces) as temporary:
                    os.replace(temporary, self._path(name))
                return
            file = self._fs.open(self._path(name), "wb", autocommit=False)
            try:
                for piece in pieces:
                    file.write(piece)
                file.close()
            except BaseException:
                file.discard()
                file.forced = True  # closing it, at the latest by its destructor, uploads nothing
                file.close()
                raise
            file.commit()

    def delete(self, name: str) -> None:
        """Removes the file `name`, if it exists."""
        with storage_errors(self.uri_of(name), "delete"):
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def delete_folder(self, name: str) -> None:
        """Removes the folder `name` and everything below it, if it exists."""
        with storage_errors(self.uri_of(name), "delete"):
            try:
                self._fs.rm(self._path(name), recursive=True)
            except FileNotFoundError:
                return

    def list(self, folder: str = "", suffix: str = "") -> list[File]:
        """All files directly in `folder`, sorted, without half-written ones; empty if absent."""
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
            File(
                self.uri_of(posixpath.join(folder, name)),
                int(entry["size"] or 0),
                version_in(entry),
            )
            for name, entry in sorted(names, key=lambda pair: pair[0])
            if name.endswith(suffix) and not name.startswith(_TEMPORARY)
        ]

    def names(self) -> list[str]:
        """Names of files and folders (`name/`) directly in this store, sorted; empty if absent.

        Hidden files are left out. Raises InputError if the URI is a file.
        """
        with storage_errors(self.uri, "list"):
            self._fs.invalidate_cache(self._root)
            try:
                entries = self._fs.ls(self._root, detail=True)
            except FileNotFoundError:
                return []
        if any(e["name"] == self._root and e["type"] == "file" and e["size"] for e in entries):
            raise InputError(
                f"{self.uri}: is a file; need a folder, or a path that does not exist yet"
            )
        names = (
            posixpath.basename(e["name"].rstrip("/")) + ("/" if e["type"] == "directory" else "")
            for e in entries
            if e["name"].rstrip("/") != self._root
        )
        return sorted(name for name in names if not name.startswith("."))

    def remove_leftovers(self, folder: str = "") -> None:
        """Removes half-written files of this and earlier writers from `folder`, on a local disk.

        Those of a writer with a larger number are kept: it may be alive, and would fail.
        """
        path = self._path(folder)
        if self.is_local and os.path.isdir(path):
            for name in os.listdir(path):
                found = _LEFTOVER.match(name)
                if found and int(found[1]) <= self.writer:
                    with suppress(FileNotFoundError):
                        os.remove(posixpath.join(path, name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _temporary_file(self, name: str, pieces: Iterable[bytes | memoryview]) -> Iterator[str]:
        """Writes the pieces to a synced temporary file beside `name`; removes it at the end."""
        folder, last = posixpath.split(self._path(name))
        os.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/{_TEMPORARY}{self.writer}-{uuid.uuid4().hex}-{last}"
        try:
            with open(temporary, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
            sync_folder(folder)
        finally:
            with suppress(FileNotFoundError):
                os.remove(temporary)
