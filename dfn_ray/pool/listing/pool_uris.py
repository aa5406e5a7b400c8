"""Entries of `pool.uri` as every process reads them, and the folders that a pattern covers."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fsspec.implementations.local import LocalFileSystem

from dfn_ray.errors import InputError
from dfn_ray.pool.listing.patterns import expand_braces, split_fixed
from dfn_ray.storage import filesystem, is_local
from dfn_ray.uris import EMPTY, is_empty


def absolute_pattern(pattern: str) -> str:
    """The pattern as every process of the cluster reads it: absolute, no trailing slash."""
    if is_empty(pattern):
        raise InputError(f"pool.uri: {pattern!r} {EMPTY}")
    if is_local(pattern) or _holds_colons(pattern):
        return LocalFileSystem._strip_protocol(pattern)
    filesystem(pattern)  # rejects secrets and unknown schemes
    return pattern.rstrip("/")


def rooted_globs(pattern: str) -> Iterator[tuple[str, str]]:
    """Folders that may be walked for an absolute pattern, each with the glob to match below.

    A path named in full may be a file, below which nothing is matched.
    """
    fixed, rest = split_fixed(pattern, path_exists)
    for member in expand_braces(rest):
        uri = f"{fixed}/{member}" if member else fixed
        root, glob = split_fixed(uri, path_exists)
        yield root, glob or "**"


def path_exists(path: str) -> bool:
    """True if a local path of exactly this name exists, which then is not a pattern."""
    return is_local(path) and os.path.lexists(path)


def _holds_colons(pattern: str) -> bool:
    """True for a relative path that exists up to a name with `::`, which else chains stores."""
    if "::" not in pattern or "://" in pattern:
        return False
    end = pattern.find("/", pattern.rfind("::"))
    return os.path.lexists(os.path.expanduser(pattern if end < 0 else pattern[:end]))
