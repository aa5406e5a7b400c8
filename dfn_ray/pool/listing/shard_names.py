"""File names in a pool: shards, files that only look like shards, and files about shards."""

from __future__ import annotations

import re

from dfn_ray.storage import Folder

_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
_PARQUET = ".parquet"
ENDINGS = (*_TAR_ENDINGS, _PARQUET)
_LOOKALIKE = re.compile(
    r"\.(tar|tgz|taz|tbz2?|tb2|tlz|tlz4|txz|tz2|tzst|parquet|parq|pq|zip|7z|rar|arrow|feather|orc|avro|tfrecords?|mds)"
    r"(?![a-z0-9])",
    re.IGNORECASE,
)
"""Endings of shards, and of archives and tables that hold samples elsewhere. Any number of suffixes
may follow, of shards that are compressed again, encrypted, backed up, numbered or incomplete
(`.zst`, `.gpg`, `~`, `.1`, `.part`, rsync's six letters)."""
_DESCRIBES = re.compile(
    r"\.(json[l5]?|txt|md|csv|tsv|ya?ml|toml|xml|html?|log|idx|index|md5(sum)?|sha\d*(sum)?|crc\d*c?|sums?|checksums?|asc|sig"
    r"|lock|meta|metadata|stats|np[yz])",
    re.IGNORECASE,
)
"""Endings of files beside a shard that are about it: indexes, checksums, signatures, statistics,
features, locks."""
_STATS = "_stats.json"


def is_shard(name: str) -> bool:
    """True for the endings of tars and Parquet files, in any case."""
    return name.lower().endswith(ENDINGS)


def is_lookalike(name: str) -> bool:
    """True for files that may be shards by their names but are not read."""
    last = name.rfind(".")
    if last <= 0 or is_shard(name) or _DESCRIBES.fullmatch(name, last):
        return False
    return _LOOKALIKE.search(name, 1) is not None


def _stem(name: str) -> str:
    """The name of a shard without its ending."""
    lower = name.lower()
    return name[: -next(len(ending) for ending in ENDINGS if lower.endswith(ending))]


def described_parquets(folder: Folder, shards: list[str]) -> set[str]:
    """The Parquet files of a folder that only describe a tar or `.npz` beside them."""
    parquets = [name for name in shards if name.lower().endswith(_PARQUET)]
    if not parquets:
        return set()
    stems = {_stem(name) for name in shards if not name.lower().endswith(_PARQUET)}
    return {
        name for name in parquets if (stem := _stem(name)) in stems or f"{stem}.npz" in folder.files
    }


def unfinished_shards(folder: Folder, shards: list[str]) -> set[str]:
    """Shards without `STEM_stats.json` in a folder where other shards have one."""
    if not any(name.endswith(_STATS) for name in folder.files):
        return set()
    without = {name for name in shards if f"{_stem(name)}{_STATS}" not in folder.files}
    return without if len(without) < len(shards) else set()
