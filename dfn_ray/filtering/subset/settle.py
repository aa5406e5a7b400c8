"""Settling: makes `subset/` contain exactly the selection, without moving bytes already in place.

While scoring, bytes were written to `subset/` if their score was surely kept, and to `borderline/`
if it was near the expected threshold. Now the threshold is known. Every written file is a function
of the scores and the rule, whichever driver writes it, and only files that no reader of the settled
run uses are removed. So settling can be repeated after a crash, and a driver that has lost the run
changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from dfn_ray.config import Pool
from dfn_ray.errors import ShardChangedError
from dfn_ray.filtering.part_files import image_parquet, subset_rows
from dfn_ray.filtering.selecting.exact_k import Selection
from dfn_ray.filtering.selecting.run_scores import RunScores, ScoredPart
from dfn_ray.filtering.subset.write_uid_list import remove_spilled
from dfn_ray.pool import Shard, read_rows
from dfn_ray.run import BORDERLINE, SCORES, SUBSET, Part, Run, parquet_stems, part_file, read_part

SETTLED = "-settled"
"""Suffix of the subset file with the kept rows of a file that also holds others."""


@dataclass(frozen=True)
class Settler:
    """Settles the files of a run to a selection. Sent to tasks; each call is one part or shard."""

    scores: RunScores
    """Without part names, which would be sent to every task; with the place of each row."""
    selection: Selection
    pool: Pool
    target: Run
    """The run whose `subset/` is settled: the scored run, or another one, read from the pool."""
    from_pool: bool = False
    """True reads every kept sample from the pool, even if its bytes are in the run."""

    def settle_part(self, name: str) -> str:
        """Moves kept borderline rows of a part to the subset, and removes subset rows not kept.

        Returns the names of the part's subset files, one per line.
        """
        part = read_part(self.scores.run.store, name)
        rows = self.scores.part(name)
        kept = np.sort(rows.position[self.selection.keeps(rows)])
        files = [self._settled(file, kept) for file in part.files]
        return "\n".join(file for file in files if file)

    def reads_from_pool(self, part: Part) -> bool:
        """True if all kept samples of the part are read from the pool, none from its files.

        That is so for another target run, and for parts committed while another network decided.
        """
        return self.from_pool or part.header.network != self.scores.network

    def survey_part(self, name: str) -> tuple[Part, list[str]]:
        """The part, and the shards with kept samples in it whose bytes are not in the run."""
        part = read_part(self.scores.run.store, name)
        return part, self._shards_with_missing_bytes(part)

    def needs_settling(self, part: Part) -> bool:
        """True if the part has borderline rows, or subset rows that may not be kept."""
        if self.reads_from_pool(part):
            return False
        return part.header.borderline is not None or self._may_demote(part)

    def _shards_with_missing_bytes(self, part: Part) -> list[str]:
        threshold = self.selection.threshold
        if threshold is None:
            return []
        if not self.reads_from_pool(part) and part.header.bounds[0] <= threshold:
            return []
        rows = self.scores.part(part.name)
        uris = self.scores.shard_uris
        return [uris[n] for n in np.unique(rows["shard"][self._absent(rows, part)]).tolist()]

    def read_back(self, missing: str) -> str:
        """Reads kept samples of a shard from the pool into one subset file; returns its name.

        These are the samples whose bytes are not in the run. `missing` is a `read_back_item`.
        """
        value = json.loads(missing)
        parts = value.pop("parts")
        shard = Shard(**value)
        kept = pa.concat_tables(
            [self._absent_rows(shard, name) for name in parts], promote_options="default"
        ).sort_by("row")
        found = pa.concat_tables(read_rows(shard, self.pool, set(kept["row"].to_pylist())))
        if found["row"].to_pylist() != kept["row"].to_pylist():
            raise ShardChangedError(
                f"{shard.uri}: has {found.num_rows} of the {kept.num_rows} kept samples that were "
                "scored there; the pool has changed since. Restore the shard and run again"
            )
        if found["uid"].to_pylist() != kept["uid"].to_pylist():
            raise ShardChangedError(
                f"{shard.uri}: contains other samples (other uids) than when it was scored; the "
                "pool has changed since. Restore the shard and run again"
            )
        for name in ("image", "text", "metadata"):
            kept = kept.append_column(found.schema.field(name), found[name])
        file = shard_file(shard.uri)
        self.target.write(f"{SUBSET}/{file}", image_parquet(_ordered(kept), file))
        return file

    def _absent_rows(self, shard: Shard, name: str) -> pa.Table:
        """The scores rows of a shard in a part that are kept but have no bytes in the run."""
        rows = self.scores.part(name)
        absent = self._absent(rows, read_part(self.scores.run.store, name))
        absent &= rows["shard"] == self.scores.shard_index[shard.uri]
        table = self.scores.run.read_table(part_file(name))
        kept = self._at_positions(table, np.sort(rows.position[absent]))
        return subset_rows(kept).replace_schema_metadata(None)

    def _absent(self, rows: ScoredPart, part: Part) -> np.ndarray:
        """Mask of the scored rows that are kept but have no bytes in the target run."""
        kept = self.selection.keeps(rows)
        return (
            kept if self.reads_from_pool(part) else kept & (rows["score"] < part.header.bounds[0])
        )

    def _may_demote(self, part: Part) -> bool:
        """True if rows of the part in `subset/` may not be kept."""
        if part.name in self.scores.disowned:
            return True
        threshold = self.selection.threshold
        beyond = threshold is None or part.header.bounds[1] <= threshold
        return part.header.subset_rows > 0 and beyond

    def _settled(self, source: str, kept: np.ndarray) -> str | None:
        """Reduces a file made while scoring to its kept rows; returns its name, None if empty."""
        run, target = self.target, f"{SUBSET}/{_settled_name(source)}"
        if not run.exists(source):  # already settled, by this driver or another one
            source = target
            if not run.exists(source):
                return None
        table = run.read_table(source)
        rows = self._at_positions(table, kept)
        if source.startswith(f"{SUBSET}/") and rows.num_rows == table.num_rows:
            return source.rpartition("/")[2]
        if rows.num_rows:
            run.write(target, image_parquet(rows, target.rpartition("/")[2]))
        if source != target or not rows.num_rows:
            run.delete(source)
        return target.rpartition("/")[2] if rows.num_rows else None

    def _at_positions(self, table: pa.Table, kept: np.ndarray) -> pa.Table:
        """The rows of a table with `shard` and `row` whose position is in the sorted `kept`."""
        return table.filter(pa.array(np.isin(self.scores.positions(table), kept)))


def _settled_name(source: str) -> str:
    base = source.rpartition("/")[2]
    return f"{base.removesuffix('.parquet')}{SETTLED}.parquet"


def remove_all_but(run: Run, files: Collection[str]) -> None:
    """Removes leftovers of crashes from the folders of a run whose subset is `files`."""
    for folder, kept in ((SUBSET, files), (BORDERLINE, ())):
        for stem in parquet_stems(run.store, folder):
            if f"{stem}.parquet" not in kept:
                run.delete(f"{folder}/{stem}.parquet")
    for folder in ("", SCORES, SUBSET, BORDERLINE):
        run.remove_leftovers(folder)
    remove_spilled(run)


def read_back_item(shard: Shard, parts: Sequence[str]) -> str:
    """A shard and the parts with its scores, as the JSON argument of `Settler.read_back`."""
    return json.dumps({**asdict(shard), "parts": list(parts)})


def shard_file(shard: str) -> str:
    """Name of the subset file with the samples of a shard that were read from the pool."""
    return f"shard-{hashlib.blake2b(shard.encode(), digest_size=16).hexdigest()}.parquet"


def _ordered(rows: pa.Table) -> pa.Table:
    """The rows with their columns in the order of the other subset files."""
    first = ["uid", "shard", "row", "key", "image", "text", "metadata"]
    return rows.select(first + [name for name in rows.column_names if name not in first])
