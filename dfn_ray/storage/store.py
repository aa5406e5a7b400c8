"""The files below one URI: read, list, delete, and write so that a file is whole or absent."""

from __future__ import annotations

import fcntl
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
from dfn_ray.storage.exclusive import named_exclusively
from dfn_ray.storage.filesystems import filesystem, is_local, is_s3, storage_errors
from dfn_ray.uris import normalised

_TEMPORARY = ".writing-"
_LEFTOVER = re.compile(rf"{re.escape(_TEMPORARY)}(\d+)-")
_LOCK = ".replacing"
_NO_VERSION = "0" * 32
"""An ETag that no content has."""


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


def version_in(info: Mapping[str, Any]) -> str | None:
    """The version of a file in what its store says of it: the ETag; None where the store has none."""
    etag = info.get("ETag") or info.get("etag")
    return plain_etag(str(etag)) if etag else None


def plain_etag(etag: str) -> str:
    """An ETag without quotes, which S3's answers have and its listings, as s3fs gives them, may not have."""
    return etag.removeprefix("W/").strip('"')


@dataclass(frozen=True)
class Store:
    """The files below one URI. Cheap to make, safe to send to other processes."""

    uri: str
    writer: int = field(default=0, compare=False)
    """Number of who writes: half-written files say whose they are, see `remove_leftovers`."""

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
        return replace(self, uri=self.uri_of(folder))

    def exists(self, name: str) -> bool:
        """True if the file `name` is there."""
        # Not the client's own `exists`, which takes most failures for an absent file.
        try:
            with storage_errors(self.uri_of(name), "look up"):
                self._fs.info(self._path(name))
        except MissingFileError:
            return False
        return True

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`. Raises StorageError when it is not there."""
        with storage_errors(self.uri_of(name), "read"):
            return self._fs.cat_file(self._path(name))

    def open(self, name: str) -> IO[bytes]:
        """The file `name`, opened for reading here and there: nothing is fetched beyond what is asked for."""
        options = {} if self.is_local else {"cache_type": "none"}
        with storage_errors(self.uri_of(name), "open"):
            return self._fs.open(self._path(name), "rb", **options)

    def write(self, name: str, data: bytes) -> None:
        """Make `data` the content of the file `name`, whole or not at all, replacing what was there.

        On a local disk: written aside, synced, renamed. On an object store: one PUT, or above 100 MiB the parts of
        one upload, which becomes the object when it is completed. Done twice it is done once, so that a PUT whose
        answer was lost is simply sent again.
        """
        with storage_errors(self.uri_of(name), "write"):
            if self.is_local:
                with self._aside(name, [data]) as aside:
                    os.replace(aside, self._path(name))
            else:
                self._fs.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Make `data` the content of the file `name` if there is none; True when the file has this content now.

        Of several that create a file at a time one does, by the store's own means: on a disk a hard link or what comes closest
        (`named_exclusively`), IfNoneMatch on S3 (gs and az: the precondition of their clients). A store that takes no
        notice of the condition lets the last one win: see `honours_conditions`.
        """
        with storage_errors(self.uri_of(name), "create"):
            if self._created(name, data):
                return True
        # Also where the answer to our own write was lost and it was sent again.
        return self.read(name) == data

    def replace(self, name: str, data: bytes, *, before: bytes | None) -> bool:
        """Make `data` the content of the file `name` if that is `before` now (None: if there is none); True when done.

        On a disk under a lock that every `replace` takes; on S3 under IfMatch. Elsewhere another write may come in
        between the look and the write.
        """
        if before is None:
            return self.create(name, data)
        with storage_errors(self.uri_of(name), "replace"):
            if self.is_local:
                with _locked(self._root):
                    done = self._content(name) == before
                    if done:
                        with self._aside(name, [data]) as aside:
                            os.replace(aside, self._path(name))
            else:
                done = self._replaced(name, data, before)
        # Also where the answer to our own write was lost and it was sent again.
        return done or self._content(name) == data

    def honours_conditions(self, name: str) -> bool:
        """True if the store refuses to create the file `name`, which is there, and on S3 to replace another version of it.

        Both are tried with the content that it has.
        """
        data = self.read(name)
        with storage_errors(self.uri_of(name), "create"):
            if self._created(name, data):
                return False
            return not is_s3(self.uri) or not self._put_over(name, data, _NO_VERSION)

    def _created(self, name: str, data: bytes) -> bool:
        """False when the file is there already."""
        path = self._path(name)
        if self.is_local:
            with self._aside(name, [data]) as aside:
                return named_exclusively(aside, path)
        try:
            self._fs.pipe_file(path, data, mode="create")
        except (ConditionFailedError, FileExistsError):
            return False
        return True

    def _replaced(self, name: str, data: bytes, before: bytes) -> bool:
        """False when the file is not, or is no longer, what it was before."""
        try:
            version = version_in(self._fs.info(self._path(name)))
            if self._fs.cat_file(self._path(name)) != before:
                return False
        except FileNotFoundError:
            return False
        return self._put_over(name, data, version)

    def _put_over(self, name: str, data: bytes, version: str | None) -> bool:
        """False when the file is not of this version; elsewhere than on S3 nobody looks."""
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
        """Make the joined pieces the content of the file `name`, whole or not at all, without holding them all."""
        path = self._path(name)
        with storage_errors(self.uri_of(name), "write"):
            if self.is_local:
                # Not the client's own way, which writes to the folder for temporary files and copies from there.
                with self._aside(name, pieces) as aside:
                    os.replace(aside, path)
                return
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
            File(
                self.uri_of(posixpath.join(folder, name)),
                int(entry["size"] or 0),
                version_in(entry),
            )
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

    def remove_leftovers(self, folder: str = "") -> None:
        """Remove files of `folder` that this writer, or one of a smaller number, left half-written on a local disk.

        Those of a larger number stay: it may be alive, and would fail.
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
    def _aside(self, name: str, pieces: Iterable[bytes | memoryview]) -> Iterator[str]:
        """The pieces as a file beside the file `name`, on its disk for good; removed at the end where it still is."""
        folder, last = posixpath.split(self._path(name))
        os.makedirs(folder, exist_ok=True)
        aside = f"{folder}/{_TEMPORARY}{self.writer}-{uuid.uuid4().hex}-{last}"
        try:
            with open(aside, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            yield aside
            _sync_folder(folder)
        finally:
            with suppress(FileNotFoundError):
                os.remove(aside)


def _sync_folder(folder: str) -> None:
    """Bring the names in a folder to its disk: until then a power cut can undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Hold the lock of a folder. It is the kernel's, so that a process that dies gives it back."""
    with open(posixpath.join(folder, _LOCK), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
