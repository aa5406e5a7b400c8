"""Single files and folders by their URI."""

from __future__ import annotations

from typing import IO, Any

from dfn_ray.storage.filesystems import READ_AHEAD_BYTES, filesystem, is_local, told
from dfn_ray.storage.store import File
from dfn_ray.storage.walk import etag


def open_uri(uri: str, *, in_order: bool = True) -> IO[bytes]:
    """The file at a URI, opened for reading: front to back with bounded read-ahead, or here and there without."""
    fs = filesystem(uri)
    options: dict[str, Any] = {}
    if not is_local(uri):
        ahead = {"block_size": READ_AHEAD_BYTES, "cache_type": "readahead"}
        options = ahead if in_order else {"cache_type": "none"}
    with told(uri, "open"):
        return fs.open(uri, "rb", **options)


def read_uri(uri: str) -> bytes:
    """All bytes of the file at a URI."""
    with told(uri, "read"):
        return filesystem(uri).cat_file(uri)


def stat(uri: str) -> File | None:
    """The file at a URI, None when a folder is there. Raises StorageError when nothing is."""
    with told(uri, "look up"):
        info = filesystem(uri).info(uri)
    return File(uri, int(info["size"] or 0), etag(info)) if info["type"] == "file" else None


def version(uri: str) -> str:
    """What tells one content of the file at a URI from another: its size and, where the store has one, its ETag."""
    with told(uri, "look up"):
        info = filesystem(uri).info(uri)
    return f"{info.get('size')} {info.get('ETag')}"
