"""The shards of a pool, found by listing folders; no shard is opened."""

from __future__ import annotations

import os
from collections import Counter
from functools import lru_cache
from itertools import groupby, pairwise
from posixpath import basename, dirname

from dfn_ray.config import Pool
from dfn_ray.errors import InputError, MissingFileError
from dfn_ray.pool.folder import class_folders
from dfn_ray.pool.listing.folders import Descent, dangling_link, reject_dangling, scan_root
from dfn_ray.pool.listing.nothing_found import names_in, nothing_found
from dfn_ray.pool.listing.patterns import (
    Glob,
    State,
    expand_braces,
    has_wildcard,
    split_fixed,
    without_query,
)
from dfn_ray.pool.listing.pool_uris import absolute_pattern, path_exists
from dfn_ray.pool.listing.real_paths import RealPaths
from dfn_ray.pool.listing.remarks import Listing, Remark, Remarks
from dfn_ray.pool.listing.shard_names import (
    described_parquets,
    is_lookalike,
    is_shard,
    unfinished_shards,
)
from dfn_ray.pool.shard import Shard
from dfn_ray.schema import ShardFault
from dfn_ray.storage import File, Folder, is_local, scan, stat
from dfn_ray.untrusted.regular_files import require_regular
from dfn_ray.uris import utf8_safe

_UNLISTABLE = ("http://", "https://")
"""Stores without folders: named files are assumed to exist until they are read."""


def list_shards(pool: Pool) -> list[Shard]:
    """The shards of `list_pool`, without its remarks."""
    return list(list_pool(pool).shards)


def list_pool(pool: Pool) -> Listing:
    """The shards that `pool.uri` matches, sorted by URI and unique, and remarks on skipped entries.

    Folders (at any depth) and globs match the `.tar`, `.tar.gz`, `.tgz` and `.parquet` files in
    them; endings in any case. Skipped are hidden folders and runs below them (rules in `Descent`),
    and Parquet files that only describe a tar of the same stem (img2dataset) or features in an
    `.npz` of the same stem (DataComp metadata). If shards have img2dataset's `STEM_stats.json`
    beside them, one without it is `unfinished_shard`. A member of a brace range that is absent, and
    a dangling link with a shard's ending, is `missing_shard`. With `format = "folder"` the shards
    are the class folders in each folder.

    Every folder is listed once, and no request is made for a single shard, except for files named
    in full. Raises InputError if a pattern matches nothing or a run, if a file named in full is
    absent, or if a shard is named twice; StorageError if a folder cannot be listed, or if a link to
    nothing is named in its place or lies among class folders.
    """
    survey = _Survey()
    patterns = [absolute_pattern(pattern) for pattern in pool.uri]
    named_in = Counter(dirname(pattern) for pattern in patterns)
    for pattern in patterns:
        if pool.format == "folder":
            survey.add_class_folders(pattern)
        else:
            survey.add_pattern(pattern, list_parent=named_in[dirname(pattern)] > 1)
    return survey.listing()


class _Survey:
    """A listing in progress."""

    def __init__(self) -> None:
        self.shards: list[Shard] = []
        self.remarks = Remarks()
        # One brace range has one parent or a few; the bound keeps listings from filling memory.
        self._scan = lru_cache(maxsize=1024)(scan)
        self._real_paths = RealPaths()

    def listing(self) -> Listing:
        """Everything found, in order."""
        self.shards.sort(key=lambda shard: shard.opened_at)
        for shard, following in pairwise(self.shards):
            if shard.uri == following.uri:
                raise InputError(
                    f"pool.uri: {shard.uri} is matched twice; use patterns that do not overlap"
                )
        self._real_paths.remark_on_same_files(self.shards, self.remarks)
        return Listing(tuple(self.shards), self.remarks)

    def add_class_folders(self, root: str) -> None:
        """Adds the folders in a folder as shards, with the bytes of the files below them."""
        found = class_folders(root, self.remarks)
        if not found:
            reject_dangling(root)
            raise InputError(
                f"pool.uri: no class folders in {utf8_safe(root)}: looked for folders of images; "
                f"found {', '.join(names_in(root)[:5]) or 'nothing'}"
            )
        for file in found:
            self.shards.append(_shard(file, root, None))
            self._real_paths.add(file.uri)

    def add_pattern(self, pattern: str, *, list_parent: bool) -> None:
        """Adds the shards that one pattern matches."""
        fixed, rest = split_fixed(pattern, path_exists)
        begin = len(self.shards)
        if not rest:
            self._add_single(pattern, list_parent=list_parent)
        else:
            self._add_varying(fixed, rest)
            if len(self.shards) == begin and not is_local(pattern):
                self._add_as_written(pattern)
        if all(shard.fault is ShardFault.MISSING for shard in self.shards[begin:]):
            raise InputError(nothing_found(pattern, self.remarks))

    def _add_single(self, uri: str, *, list_parent: bool) -> None:
        """Adds the shard, or the shards of the folder, at a URI that is not a pattern."""
        folder, name = dirname(uri), basename(uri)
        if uri.startswith(_UNLISTABLE):
            self.shards.append(_shard(File(uri, 0), folder, None))
            return
        if list_parent and (listed := self._scan(folder)) and name in listed.files:
            self._add_named([uri], folder)
            return
        try:
            file = stat(uri)
        except MissingFileError as error:
            reject_dangling(uri)
            raise InputError(nothing_found(uri, self.remarks)) from error
        if file is None:
            if is_local(uri) and not os.path.isdir(uri):
                require_regular(uri, "pool.uri")
            self._add_below(uri, "**", uri)
        else:
            self.shards.append(_shard(file, folder, None))
            self._real_paths.add(uri)

    def _add_varying(self, fixed: str, rest: str) -> None:
        named: list[str] = []
        for member in expand_braces(rest):
            uri = f"{fixed}/{member}"
            if has_wildcard(without_query(uri)[len(fixed) :]):
                root, glob = split_fixed(uri, path_exists)
                if glob:
                    self._add_below(root, glob, fixed)
                else:
                    self._add_as_written(uri, fixed)
            elif "." in basename(without_query(uri)):
                named.append(uri)
            else:
                self._add_below(uri, "**", fixed)
        self._add_named(named, fixed)

    def _add_as_written(self, uri: str, prefix: str | None = None) -> None:
        """Adds what exists at a URI that looks like a pattern, if anything does."""
        try:
            file = stat(uri)
        except MissingFileError:
            reject_dangling(uri)
            return
        if file is None:
            self._add_below(uri, "**", uri if prefix is None else prefix)
        else:
            self.shards.append(_shard(file, dirname(uri) if prefix is None else prefix, None))

    def _add_below(self, root: str, pattern: str, prefix: str) -> None:
        """Adds the shards that match a glob below a folder."""
        glob = Glob(pattern)
        descent = Descent(
            glob,
            self.remarks,
            lambda folder, state: self._take(folder, glob, state, prefix),
            is_file=is_shard,
        )
        if glob.depth != 1:
            is_there = descent.below(root)
        elif is_there := (folder := scan_root(root)) is not None:
            descent.visit(folder, glob.start)
        if not is_there:
            reject_dangling(root)
            self.remarks.add(Remark.NOTHING_THERE, root)

    def _take(self, folder: Folder, glob: Glob, state: State, prefix: str) -> None:
        """Adds the shards among the files of a folder that match."""
        names = [name for name in folder.files if is_shard(name)]
        described = described_parquets(folder, names)
        unfinished = unfinished_shards(folder, names)
        taken = [name for name in names if name not in described and glob.matches_file(state, name)]
        for name in taken:
            fault = ShardFault.UNFINISHED if name in unfinished else None
            self.shards.append(_shard(folder.files[name], prefix, fault))
        for name in folder.dangling:
            if is_shard(name) and glob.matches_file(state, name):
                file = File(f"{folder.uri}/{name}", 0)
                self.shards.append(_shard(file, prefix, ShardFault.MISSING))
        if taken:
            self._real_paths.add_folder(folder, taken)
        self._remark_on_skipped(folder, glob, state)

    def _remark_on_skipped(self, folder: Folder, glob: Glob, state: State) -> None:
        """Adds remarks on matching files of a folder that look like shards but are not."""
        for name in folder.files:
            is_hidden = name.startswith(".")
            if not (is_lookalike(name) or (is_hidden and is_shard(name))):
                continue
            if glob.matches_file(state, name):
                if not is_shard(name):
                    self.remarks.add(Remark.OTHER_ENDING, f"{folder.uri}/{name}")
            elif is_hidden and glob.matches_file(state, name, hidden=True):
                self.remarks.add(Remark.HIDDEN_FILE, f"{folder.uri}/{name}")
        for name in folder.special:
            if is_shard(name) and glob.matches_file(state, name):
                self.remarks.add(Remark.SPECIAL_FILE, f"{folder.uri}/{name}")

    def _add_named(self, uris: list[str], prefix: str) -> None:
        """Adds shards named in full, or those in folders of these names; others are missing."""
        for parent, members in groupby(sorted(uris), dirname):
            if parent.startswith(_UNLISTABLE):
                self.shards += [_shard(File(uri, 0), prefix, None) for uri in members]
                continue
            folder = self._scan(parent)
            if folder is None:
                reject_dangling(parent)
                self.remarks.add(Remark.ABSENT_FOLDER, parent)
                folder = Folder(parent, parent, {})
            unfinished = unfinished_shards(
                folder, [name for name in folder.files if is_shard(name)]
            )
            taken: list[str] = []
            for uri in members:
                name = basename(uri)
                if name in folder.files:
                    fault = ShardFault.UNFINISHED if name in unfinished else None
                    self.shards.append(_shard(folder.files[name], prefix, fault))
                    taken.append(name)
                elif name in folder.folders:
                    self._add_below(uri, "**", prefix)
                elif name in folder.loops:
                    self.remarks.add(Remark.LOOP, uri)
                elif name in folder.dangling and not is_shard(name):
                    raise dangling_link(uri)
                else:
                    self.shards.append(_shard(File(uri, 0), prefix, ShardFault.MISSING))
                    if name in folder.special:
                        self.remarks.add(Remark.SPECIAL_FILE, uri)
            self._real_paths.add_folder(folder, taken)


def _shard(file: File, prefix: str, fault: ShardFault | None) -> Shard:
    """A shard named by its path below a folder, both in characters that UTF-8 can encode."""
    uri, name = file.uri, file.uri[len(prefix) + 1 :]
    if uri.isascii() and "\\" not in uri:
        return Shard(uri, name, file.size_bytes, fault, version=file.version)
    safe = utf8_safe(uri)
    location = None if safe == uri else uri
    return Shard(safe, utf8_safe(name), file.size_bytes, fault, location, file.version)
