"""Which shards a pool has, by listing folders; no shard is opened."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from itertools import groupby, pairwise
from posixpath import basename, dirname

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol, glob_translate

from dfn_ray.config import Pool
from dfn_ray.errors import InputError, MissingFileError
from dfn_ray.pool.patterns import expand_braces, fixed_prefix, has_wildcard
from dfn_ray.pool.shard import Shard
from dfn_ray.schema import ShardFault
from dfn_ray.storage import File, Store, files_below, filesystem, folders_in, stat

_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
_PARQUET = ".parquet"
_STATS = "_stats.json"
_UNLISTABLE = ("http", "https")
"""Stores without folders: named files are taken at their word, and looked for when they are read."""

_Listing = Callable[[str], dict[str, File]]
"""The files of a folder by name; each folder is listed once per call of `list_shards`."""


def list_shards(pool: Pool) -> list[Shard]:
    """The shards that `pool.uri` stands for, by URI, each once.

    Folders (at any depth) and globs give the `.tar`, `.tar.gz`, `.tgz` and `.parquet` files in them. Left out are
    Parquet files that only describe a tar of the same stem (img2dataset) or features in an `.npz` of the same stem
    (DataComp metadata). Where shards have img2dataset's `STEM_stats.json` beside them, one without it is
    `unfinished_shard`. A member of a brace range that is absent is `missing_shard`. With `format = "folder"` the
    shards are the class folders in each folder.

    Lists every folder once and asks for no shard by itself, except for single files named in full. Raises InputError
    when a pattern stands for nothing, a file named in full is absent, or a shard is named twice.
    """
    listing = cache(_list)
    patterns = [_absolute(pattern) for pattern in pool.uri]
    named_in = Counter(dirname(pattern) for pattern in patterns)
    shards: list[Shard] = []
    for pattern in patterns:
        if pool.format == "folder":
            shards += _class_folders(pattern)
            continue
        found = _shards_of(pattern, listing, list_parent=named_in[dirname(pattern)] > 1)
        if all(shard.fault is ShardFault.MISSING for shard in found):
            raise InputError(_nothing_found(pattern))
        shards += found
    shards.sort(key=lambda shard: shard.uri)
    for shard, following in pairwise(shards):
        if shard.uri == following.uri:
            raise InputError(f"pool.uri: {shard.uri} is named twice; let the patterns not overlap")
    return shards


def _class_folders(root: str) -> list[Shard]:
    """The folders in a folder as shards, with the bytes of the files below them."""
    sizes: Counter[str] = Counter()
    for file in files_below(root):
        sizes[file.uri[len(root) + 1 :].partition("/")[0]] += file.size_bytes
    names = folders_in(root)
    if not names:
        raise InputError(
            f"pool.uri: no class folders in {root}: looked for folders of images; "
            f"{', '.join(_names_in(root)[:5]) or 'nothing'} is there"
        )
    return [Shard(f"{root}/{name}", name, sizes[name]) for name in names]


def _shards_of(pattern: str, listing: _Listing, *, list_parent: bool) -> list[Shard]:
    """The shards one pattern stands for."""
    if "{" not in pattern and not has_wildcard(pattern):
        return _single(pattern, listing, list_parent=list_parent)
    prefix = fixed_prefix(pattern)
    shards: list[Shard] = []
    named: list[str] = []
    for uri in expand_braces(pattern):
        if has_wildcard(uri):
            shards += _matching(uri, prefix, listing)
        elif "." in basename(uri):
            named.append(uri)
        else:
            shards += _in_folders(files_below(uri), prefix)
    return shards + _named(named, prefix, listing)


def _single(uri: str, listing: _Listing, *, list_parent: bool) -> list[Shard]:
    """The shard, or the shards of the folder, at a URI without anything that varies."""
    folder, name = dirname(uri), basename(uri)
    if get_protocol(uri) in _UNLISTABLE:
        return [Shard(uri, name, 0)]
    if list_parent and name in listing(folder):
        return _named([uri], folder, listing)
    try:
        file = stat(uri)
    except MissingFileError as error:
        raise InputError(_nothing_found(uri)) from error
    return (
        _in_folders(files_below(uri), uri) if file is None else [Shard(uri, name, file.size_bytes)]
    )


def _matching(uri: str, prefix: str, listing: _Listing) -> list[Shard]:
    """The shards that a glob stands for."""
    folder = fixed_prefix(uri)
    flat = folder == dirname(uri)
    files = listing(folder).values() if flat else files_below(folder)
    matches = re.compile(glob_translate(uri)).match
    return [shard for shard in _in_folders(files, prefix) if matches(shard.uri)]


def _in_folders(files: Iterable[File], prefix: str) -> list[Shard]:
    """The shards among all the files of some folders."""
    shards: list[Shard] = []
    for _, group in groupby(
        sorted(files, key=lambda file: dirname(file.uri)), lambda file: dirname(file.uri)
    ):
        folder = {basename(file.uri): file for file in group}
        unfinished = _unfinished(folder)
        shards += [
            _shard(file, prefix, ShardFault.UNFINISHED if name in unfinished else None)
            for name, file in folder.items()
            if _is_shard(name, folder)
        ]
    return shards


def _named(uris: list[str], prefix: str, listing: _Listing) -> list[Shard]:
    """The shards at URIs that are taken as they are; those that are absent are missing."""
    shards: list[Shard] = []
    for parent, group in groupby(sorted(uris), dirname):
        if get_protocol(parent) in _UNLISTABLE:
            shards += [_shard(File(uri, 0), prefix, None) for uri in group]
            continue
        folder = listing(parent)
        unfinished = _unfinished(folder)
        for uri in group:
            name = basename(uri)
            if name not in folder:
                shards.append(_shard(File(uri, 0), prefix, ShardFault.MISSING))
            else:
                fault = ShardFault.UNFINISHED if name in unfinished else None
                shards.append(_shard(folder[name], prefix, fault))
    return shards


def _shard(file: File, prefix: str, fault: ShardFault | None) -> Shard:
    return Shard(file.uri, file.uri[len(prefix) + 1 :], file.size_bytes, fault)


def _stem(name: str) -> str | None:
    """The name of a shard without its ending; None for other files."""
    for ending in (*_TAR_ENDINGS, _PARQUET):
        if name.endswith(ending):
            return name[: -len(ending)]
    return None


def _is_shard(name: str, folder: dict[str, File]) -> bool:
    """True for a tar, and for a Parquet file that does not merely describe a file beside it; not for hidden files."""
    stem = _stem(name)
    if stem is None or name.startswith("."):
        return False
    if not name.endswith(_PARQUET):
        return True
    return not any(f"{stem}{ending}" in folder for ending in (*_TAR_ENDINGS, ".npz"))


def _unfinished(folder: dict[str, File]) -> set[str]:
    """Shards without `STEM_stats.json` in a folder where other shards have one."""
    stems = {name: stem for name in folder if (stem := _stem(name)) is not None}
    without = {name for name, stem in stems.items() if f"{stem}{_STATS}" not in folder}
    return without if len(without) < len(stems) else set()


def _list(folder: str) -> dict[str, File]:
    return {basename(file.uri): file for file in Store(folder).list()}


def _absolute(pattern: str) -> str:
    """`pattern` as every process of the cluster reads it: local paths from the root, no slash at the end."""
    if isinstance(filesystem(pattern), LocalFileSystem):
        return url_to_fs(pattern)[1]
    return pattern.rstrip("/")


def _nothing_found(pattern: str) -> str:
    """What to tell when a pattern stands for nothing."""
    varies = "{" in pattern or has_wildcard(pattern)
    places = (fixed_prefix(pattern),) if varies else (pattern, dirname(pattern))
    place, names = next(
        ((place, names) for place in places if (names := _names_in(place))), ("", [])
    )
    endings = ", ".join(f"*{ending}" for ending in (*_TAR_ENDINGS, _PARQUET))
    there = f"{place} holds {', '.join(names[:5])}" if names else f"nothing is in {places[-1]}"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (
        f"pool.uri: no shards at {pattern}: looked for {endings} that are not mere descriptions of a tar or "
        f".npz beside them; {there}{more}"
    )


def _names_in(folder: str) -> list[str]:
    """What is directly in a folder, files and folders; nothing if it is no folder."""
    try:
        return sorted(
            basename(name.rstrip("/")) for name in filesystem(folder).ls(folder, detail=False)
        )
    except OSError:  # only a hint in a message
        return []
