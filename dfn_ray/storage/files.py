"""Single files and folders by their URI."""

from __future__ import annotations

import posixpath
from typing import IO, Any

from dfn_ray.errors import MissingFileError
from dfn_ray.storage.filesystems import READ_AHEAD_BYTES, filesystem, is_local, storage_errors
from dfn_ray.storage.store import File, version_in
from dfn_ray.uris import HTTP_SCHEMES, normalised, scheme_of


def open_uri(uri: str, *, in_order: bool = True) -> IO[bytes]:
    """Opens the file at a URI, for sequential reads with bounded read-ahead or for random ones."""
    fs, uri = filesystem(uri), normalised(uri)
    options: dict[str, Any] = {}
    if not is_local(uri):
        ahead = {"block_size": READ_AHEAD_BYTES, "cache_type": "readahead"}
        options = ahead if in_order else {"cache_type": "none"}
    with storage_errors(uri, "open"):
        return fs.open(uri, "rb", **options)


def read_uri(uri: str) -> bytes:
    """All bytes of the file at a URI."""
    with storage_errors(uri, "read"):
        return filesystem(uri).cat_file(normalised(uri))


def stat(uri: str) -> File | None:
    """The file at a URI; None for a folder. Raises MissingFileError if neither exists."""
    with storage_errors(uri, "access"):
        info = filesystem(uri).info(normalised(uri))
    if info["type"] != "file":
        return None
    return File(uri, int(info["size"] or 0), version_in(info))


def version_of(file: IO[bytes]) -> str | None:
    """The version (ETag) that all reads of a file from `open_uri` refer to; None without one.

    Comparable with `File.version` of a listing. The length of the file is its size in that version.
    """
    return getattr(file, "version", None)


def is_confirmed_missing(uri: str) -> bool:
    """True if a file whose opening raised MissingFileError is certainly absent.

    A store that lists must still list the file's folder, without its name: an absent folder or
    bucket may be an unmounted disk or a wrong setting. For a web server, 404 or 410 is enough.
    Raises StorageError when the store fails.
    """
    uri = normalised(uri)
    folder, _, name = uri.rpartition("/")
    if scheme_of(uri) in HTTP_SCHEMES:
        try:
            stat(uri)
        except MissingFileError:
            return True
        return False
    fs = filesystem(uri)
    try:
        with storage_errors(folder, "list"):
            fs.invalidate_cache(fs._strip_protocol(folder).rstrip("/"))
            if fs.info(folder)["type"] != "directory":
                return False
            entries = fs.ls(folder, detail=False)
    except MissingFileError:
        return False
    return name not in (posixpath.basename(entry.rstrip("/")) for entry in entries)


def version(uri: str, *, dated: bool = False) -> str:
    """Identifies the content of the file at a URI: its size and, if the store has one, its ETag.

    `dated` adds a web server's Last-Modified if there is no ETag. That identifies a copy and must
    not be compared, because mirrors of a file have different dates.
    """
    with storage_errors(uri, "access"):
        info = filesystem(uri).info(normalised(uri))
    tag = version_in(info) or (info.get("Last-Modified") if dated else None)
    return f"{info.get('size')} {tag}"
