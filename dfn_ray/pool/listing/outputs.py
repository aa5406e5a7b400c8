"""Check that an output is not written where a pool would list it as a shard of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from dfn_ray.config import Pool
from dfn_ray.errors import InputError
from dfn_ray.pool.listing.patterns import Glob, split_fixed
from dfn_ray.pool.listing.pool_uris import absolute_pattern, path_exists, rooted_globs
from dfn_ray.pool.shard import Shard
from dfn_ray.storage import Store, is_local

_PART = f"part-000001-{'0' * 32}.parquet"
RUN_FILES = (
    "pool.parquet",
    f"pool-{'0' * 32}.parquet",
    "index.parquet",
    *(f"{folder}/{_PART}" for folder in ("scores", "subset", "borderline")),
)
"""Files of every kind of run that look like shards, relative to its URI."""


def require_outside_pool(
    pool: Pool,
    uri: str,
    *,
    setting: str,
    writes: Sequence[str] = RUN_FILES,
    shards: Iterable[Shard] = (),
) -> None:
    """Raises InputError, naming `setting`, if the pool would list what is written to a URI.

    `writes` are paths of files below it. Links are resolved: those of the URI, of the pool's own
    folders, and those through which the listed `shards` were reached. A hidden folder, or one that
    no pattern of the pool can match, may be written to anywhere.
    """
    out = _real(uri)
    places = [out]
    for folder, real in _links(shards) if is_local(uri) else ():
        if _is_below(out, real):
            places.append(folder + out[len(real) :])
    files = [f"{place}/{name}" for place in places for name in writes]
    for pattern in map(absolute_pattern, pool.uri):
        for root, taken in _reaches(pattern, pool, places):
            prefix = f"{root}/"
            for file in files:
                if file.startswith(prefix) and _takes(taken, file[len(prefix) :], pool):
                    raise InputError(
                        f"{setting}: {uri} lies in the pool, where {pattern} of pool.uri would "
                        f"list {file} as a shard; use a folder next to the pool, or a hidden one "
                        "(its name begins with . or _)"
                    )


def _reaches(pattern: str, pool: Pool, places: Sequence[str]) -> Iterator[tuple[str, Glob]]:
    """The folders that a pattern walks near some places, resolved and as written, with globs."""
    fixed, _ = split_fixed(pattern, path_exists)
    near = {fixed, _real(fixed)}
    if not any(_is_below(a, b) or _is_below(b, a) for a in places for b in near):
        return  # a pattern may expand to millions of files
    found = [(pattern, "**")] if pool.format == "folder" else rooted_globs(pattern)
    for root, glob in found:
        if glob == "**" and "." in os.path.basename(root) and not _may_hold(root, places):
            continue
        for spelling in {root, _real(root)}:
            yield spelling.rstrip("/"), Glob(glob)


def _may_hold(root: str, places: Sequence[str]) -> bool:
    """False if a pattern's member that looks like a file cannot be a folder around a place.

    Cheap, because it runs for millions of members.
    """
    name = f"/{os.path.basename(root)}/"
    return any(name in f"{place}/" for place in places) or (is_local(root) and os.path.isdir(root))


def _takes(glob: Glob, path: str, pool: Pool) -> bool:
    """True if a file at a path below a folder would be listed.

    In a pool of class folders: below any folder in it.
    """
    if pool.format != "folder":
        return glob.matches(path)
    _, slash, below = path.partition("/")
    return bool(slash) and glob.matches(below)


def _links(shards: Iterable[Shard]) -> Iterator[tuple[str, str]]:
    """Folders of local shards and their parents that differ from their real paths, with these."""
    folders = {os.path.dirname(shard.opened_at) for shard in shards if is_local(shard.opened_at)}
    pending, seen = list(folders), set(folders)
    while pending:
        folder = pending.pop()
        real = os.path.realpath(folder)
        if real != folder:
            yield folder, real
        above = os.path.dirname(folder)
        if above not in seen:
            seen.add(above)
            pending.append(above)


def _real(uri: str) -> str:
    """A URI without links, or in the canonical spelling of an object store."""
    if not is_local(uri):
        return Store(uri).address
    return os.path.realpath(absolute_pattern(uri))


def _is_below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")
