"""Single files and folders by their URI."""

from __future__ import annotations

import posixpath
from typing import IO, Any

from fsspec.utils import get_protocol

from dfn_ray.errors import MissingFileError
from dfn_ray.storage.filesystems import READ_AHEAD_BYTES, filesystem, is_local, storage_errors
from dfn_ray.storage.store import File


def open_uri(uri: str, *, in_order: bool = True) -> IO[bytes]:
    """The file at a URI, opened for reading: front to back with bounded read-ahead, or here and there without."""
    fs = filesystem(uri)
    options: dict[str, Any] = {}
    if not is_local(uri):
        ahead = {"block_size": READ_AHEAD_BYTES, "cache_type": "readahead"}
        options = ahead if in_order else {"cache_type": "none"}
    with storage_errors(uri, "open"):
        return fs.open(uri, "rb", **options)


def read_uri(uri: str) -> bytes:
    """All bytes of the file at a URI."""
    with storage_errors(uri, "read"):
        return filesystem(uri).cat_file(uri)


def files_below(folder: str) -> list[File]:
    """All files below a folder, at any depth, by name; an absent folder has none. URIs begin with `folder` as given."""
    fs = filesystem(folder)
    with storage_errors(folder, "list"):
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
    with storage_errors(folder, "list"):
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
    with storage_errors(uri, "look up"):
        info = filesystem(uri).info(uri)
    return File(uri, int(info["size"] or 0)) if info["type"] == "file" else None


def is_confirmed_missing(uri: str) -> bool:
    """True if a file whose opening raised MissingFileError is absent beyond doubt: its store can still be asked.

    A store that lists must still list the folder of the file, without its name; an absent folder or bucket says
    nothing about the file. Of a web server the answer 404 or 410 is enough. Raises StorageError when the store fails.
    """
    folder, _, name = uri.rpartition("/")
    if get_protocol(uri) in ("http", "https"):
        try:
            stat(uri)
        except MissingFileError:
            return True
        return False
    fs = filesystem(uri)
    with storage_errors(folder, "list"):
        fs.invalidate_cache(fs._strip_protocol(folder).rstrip("/"))
        try:
            entries = fs.ls(folder, detail=False)
        except FileNotFoundError:
            return False
    return name not in (posixpath.basename(entry.rstrip("/")) for entry in entries)


def version(uri: str) -> str:
    """What tells one content of the file at a URI from another: its size and, where the store has one, its ETag."""
    with storage_errors(uri, "look up"):
        info = filesystem(uri).info(uri)
    return f"{info.get('size')} {info.get('ETag')}"
