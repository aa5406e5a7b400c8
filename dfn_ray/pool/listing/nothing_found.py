"""The error message for a pattern that matches no shard."""

from __future__ import annotations

from posixpath import dirname

from dfn_ray.errors import StorageError
from dfn_ray.pool.listing.patterns import ESCAPING, is_pattern, split_fixed
from dfn_ray.pool.listing.pool_uris import path_exists
from dfn_ray.pool.listing.remarks import Remarks
from dfn_ray.pool.listing.shard_names import ENDINGS
from dfn_ray.storage import scan
from dfn_ray.uris import utf8_safe


def nothing_found(pattern: str, remarks: Remarks) -> str:
    """The message for a pattern that matches no shard."""
    fixed, rest = split_fixed(pattern, path_exists)
    places = (fixed,) if rest else (pattern, dirname(pattern))
    place, names = next(
        ((place, names) for place in places if (names := names_in(place))), ("", [])
    )
    endings = ", ".join(f"*{ending}" for ending in ENDINGS)
    there = (
        f"{utf8_safe(place)} contains {', '.join(names[:5])}"
        if names
        else f"{utf8_safe(places[-1])} is empty or does not exist"
    )
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    lines = [
        f"pool.uri: no shards at {utf8_safe(pattern)}: looked for {endings}, except Parquet files "
        f"that only hold metadata for a tar or .npz file of the same name; {there}{more}",
        *remarks.lines(),
    ]
    return "\n".join([*lines, ESCAPING] if is_pattern(pattern) else lines)


def names_in(folder: str) -> list[str]:
    """The names of files and folders directly in a folder; empty if it is not a folder."""
    try:
        found = scan(folder)
    except StorageError:  # only a hint in a message
        return []
    return sorted(map(utf8_safe, (*found.files, *found.folders))) if found else []
