"""Shards of one listing that are the same file, reached through links."""

from __future__ import annotations

import os
from collections.abc import Iterable

from dfn_ray.pool.listing.remarks import Remark, Remarks
from dfn_ray.pool.shard import Shard
from dfn_ray.storage import Folder, is_local


class RealPaths:
    """Real paths of local folders that hold shards, and of shards that are links themselves."""

    def __init__(self) -> None:
        self._real: dict[str, str] = {}

    def add_folder(self, folder: Folder, shards: Iterable[str]) -> None:
        """Records a folder, and those of the shards in it, given by name, that are links."""
        self._real[folder.uri] = folder.real
        if folder.links:
            for name in shards:
                if name in folder.links:
                    self.add(f"{folder.uri}/{name}")

    def add(self, uri: str) -> None:
        """Records a shard that may be a link."""
        if is_local(uri):
            self._real[uri] = os.path.realpath(uri)

    def remark_on_same_files(self, shards: Iterable[Shard], remarks: Remarks) -> None:
        """Adds a remark for each shard whose file an earlier shard reads too."""
        if all(path == real for path, real in self._real.items()):
            return
        first: dict[str, Shard] = {}
        for shard in shards:
            folder, _, name = shard.opened_at.rpartition("/")
            real = self._real.get(shard.opened_at) or f"{self._real.get(folder, folder)}/{name}"
            if real in first:
                remarks.add(Remark.SAME_FILE, f"{shard.uri}, which is {first[real].uri}")
            else:
                first[real] = shard
