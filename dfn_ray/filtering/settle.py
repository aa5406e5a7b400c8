"""Making `subset/` hold exactly the selection, without moving bytes that are already right.

While scoring, bytes went to `subset/` when their score was sure to be kept and to `borderline/` when it
was near the threshold to be. Now the threshold is known. Every step is idempotent: a crash in between is
repaired by doing it again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.config import Pool
from dfn_ray.errors import InputError
from dfn_ray.filtering.commit import image_parquet, subset_rows
from dfn_ray.filtering.scores import RunScores, ScoredPart
from dfn_ray.filtering.selection import Selection
from dfn_ray.manifest import BORDERLINE, SCORES, SUBSET, Part, read_part
from dfn_ray.pool import Shard, read_rows
from dfn_ray.storage import Store

SETTLED = "-settled"
"""Suffix of the subset file with the kept rows of a borderline file."""


@dataclass(frozen=True)
class Settler:
    """Settles the files of a run to a selection. Sent to tasks; each call is one part or one shard."""

    scores: RunScores
    selection: Selection
    pool: Pool
    target: Store
    """Whose `subset/` is made right: the run's own, or another folder that gets all bytes from the pool."""
    from_pool: bool = False
    """True reads every kept sample from the pool, whether or not its bytes are in the run."""

    def settle_part(self, name: str) -> None:
        """Move the kept borderline rows of a part to the subset, and drop subset rows that are not kept."""
        store = self.scores.run.store
        part = read_part(store, name)
        rows = self.scores.part(name)
        kept = np.sort(rows.position[self.selection.keeps(rows)])
        if self._may_demote(part):
            for stem in (name, f"{name}{SETTLED}"):
                self._rewrite(f"{SUBSET}/{stem}.parquet", f"{SUBSET}/{stem}.parquet", kept)
        if part.header.borderline_rows and store.exists(f"{BORDERLINE}/{name}.parquet"):
            self._rewrite(f"{BORDERLINE}/{name}.parquet", f"{SUBSET}/{name}{SETTLED}.parquet", kept)
            store.delete(f"{BORDERLINE}/{name}.parquet")

    def needs_settling(self, part: Part, borderline: frozenset[str]) -> bool:
        """True when the part has a borderline file or subset rows that may not be kept."""
        return part.name in borderline or self._may_demote(part)

    def shards_with_missing_bytes(self, part: Part) -> list[str]:
        """Shards of the part with kept samples whose bytes did not travel."""
        threshold = self.selection.threshold
        if threshold is None or not (self.from_pool or part.header.bounds[0] > threshold):
            return []
        rows = self.scores.part(part.name)
        uris = self.scores.shard_uris
        return [uris[n] for n in np.unique(rows["shard"][self._absent(rows, part)]).tolist()]

    def read_back(self, missing: tuple[Shard, tuple[str, ...]]) -> None:
        """Read the kept samples of a shard whose bytes did not travel from the pool, into one subset file."""
        shard, names = missing
        wanted = pa.concat_tables(
            [self._absent_rows(shard, name) for name in names], promote_options="default"
        ).sort_by("row")
        found = pa.concat_tables(read_rows(shard, self.pool, set(wanted["row"].to_pylist())))
        if found["row"].to_pylist() != wanted["row"].to_pylist():
            raise InputError(
                f"{shard.uri}: has {found.num_rows} of the {wanted.num_rows} kept samples that were scored "
                "there; the pool changed under the run. Restore the shard and run again"
            )
        if found["uid"].to_pylist() != wanted["uid"].to_pylist():
            raise InputError(
                f"{shard.uri}: holds other samples than those that were scored there (other uids); the pool changed "
                "under the run. Restore the shard and run again"
            )
        for name in ("image", "text", "metadata"):
            wanted = wanted.append_column(found.schema.field(name), found[name])
        self.target.write(f"{SUBSET}/{shard_file(shard.uri)}", image_parquet(_ordered(wanted)))

    def _absent_rows(self, shard: Shard, name: str) -> pa.Table:
        """The scores rows of a shard in a part that are kept but whose bytes did not travel."""
        rows = self.scores.part(name)
        absent = self._absent(rows, read_part(self.scores.run.store, name))
        absent &= rows["shard"] == self.scores.shard_index[shard.uri]
        with self.scores.run.store.open(f"{SCORES}/{name}.parquet") as file:
            table = pq.read_table(file)
        kept = self._at_positions(table, np.sort(rows.position[absent]))
        return subset_rows(kept).replace_schema_metadata(None)

    def _absent(self, rows: ScoredPart, part: Part) -> np.ndarray:
        """Which scored rows are kept but have no bytes where they are wanted."""
        kept = self.selection.keeps(rows)
        return kept if self.from_pool else kept & (rows["score"] < part.header.bounds[0])

    def _may_demote(self, part: Part) -> bool:
        """True when rows of the part that are in `subset/` may not belong there."""
        if part.name in self.scores.disowned:
            return True
        threshold = self.selection.threshold
        beyond = threshold is None or part.header.bounds[1] <= threshold
        return part.header.subset_rows > 0 and beyond

    def _rewrite(self, source: str, target: str, kept: np.ndarray) -> None:
        """Make `target` the rows of `source` at the kept positions; no rows, no file."""
        store = self.scores.run.store
        if not store.exists(source):
            return
        with store.open(source) as file:
            table = pq.read_table(file)
        rows = self._at_positions(table, kept)
        if rows.num_rows == table.num_rows and source == target:
            return
        if rows.num_rows:
            store.write(target, image_parquet(rows))
        else:
            store.delete(target)

    def _at_positions(self, table: pa.Table, kept: np.ndarray) -> pa.Table:
        """The rows of a table with `shard` and `row` whose position is in `kept`, which is sorted."""
        return table.filter(pa.array(np.isin(self.scores.positions(table), kept)))


def shard_file(shard: str) -> str:
    """Name of the subset file with the samples read back from a shard."""
    return f"shard-{hashlib.blake2b(shard.encode(), digest_size=16).hexdigest()}.parquet"


def _ordered(rows: pa.Table) -> pa.Table:
    """The columns in the order of the other subset files."""
    first = ["uid", "shard", "row", "key", "image", "text", "metadata"]
    return rows.select(first + [name for name in rows.column_names if name not in first])
