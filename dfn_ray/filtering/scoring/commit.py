"""Commit of a part: subset and borderline bytes first, scores last. See `dfn_ray.run`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.errors import RunTakenOverError, StorageAccessError
from dfn_ray.filtering.part_files import (
    COPIES,
    image_parquet,
    scores_parquet,
    subset_rows,
    with_shard,
)
from dfn_ray.filtering.scoring.bounds import Bounds
from dfn_ray.on_ray.cells import Cell, unpack
from dfn_ray.on_ray.ray_metrics import score_buckets
from dfn_ray.preparing.statuses import status_counts
from dfn_ray.run import (
    BORDERLINE,
    SUBSET,
    Part,
    PartHeader,
    Run,
    content_name,
    part_file,
)
from dfn_ray.schema import Status, score_column

TAKEN_OVER = "taken_over"
"""Column of a committer's report to the driver: the reason why it committed nothing. The other
columns are null then."""
REFUSED = "refused"
"""Column of the same report: the reason why the store refuses every write. The other columns are
null then."""
UNREAD = "unread"
"""Column of the same report: JSON of an `UnreadShard`. The other columns are null then."""
_PART = ("name", "chunks", "counts", "scorers", "score_buckets")
_REPORT = pa.schema([(name, pa.string()) for name in (TAKEN_OVER, REFUSED, UNREAD, *_PART)])


@dataclass(frozen=True)
class Committer:
    """Callable that commits a block of scored cells as one part; returns a row for the driver."""

    run: Run
    bounds: Bounds
    deciding_network: str | None
    """Network whose score the bounds apply to; None: every listed sample goes to the subset."""

    def __call__(self, block: pa.Table) -> pa.Table:
        """Commits all cells of the block as one part; returns the reports for the driver."""
        arrived = list(unpack(block))
        unread = unread_report([cell for cell in arrived if cell.unread])
        cells = [cell for cell in arrived if not cell.unread]
        return pa.concat_tables([self.report(cells), unread]) if cells else unread

    def report(self, cells: Sequence[Cell]) -> pa.Table:
        """Commits the cells as one part; returns its report, or why no part can be committed.

        A takeover and a store that denies writes are reported as a row: Ray Data may drop
        an error of a task, and scoring would continue.
        """
        try:
            part = self.commit(cells)
        except RunTakenOverError as error:
            return pa.Table.from_pylist([{TAKEN_OVER: str(error)}], schema=_REPORT)
        except StorageAccessError as error:
            return pa.Table.from_pylist([{REFUSED: str(error)}], schema=_REPORT)
        report = {
            "name": part.name,
            "chunks": json.dumps([chunk.to_json() for chunk in part.chunks]),
            "counts": json.dumps(dict(part.header.counts)),
            "scorers": json.dumps(sorted({cell.scorer for cell in cells} - {""})),
            "score_buckets": json.dumps(self._score_buckets(cells)),
        }
        return pa.Table.from_pylist([report], schema=_REPORT)

    def commit(self, cells: Sequence[Cell]) -> Part:
        """Commits the cells as one part.

        Raises RunTakenOverError when another driver holds the run.
        """
        cells = sorted(cells, key=lambda cell: (cell.chunk.shard, cell.chunk.first_row))
        chunks = [cell.chunk for cell in cells]
        samples = pa.concat_tables([with_shard(cell) for cell in cells], promote_options="default")
        kept, borderline = self._split(samples)
        header = PartHeader(
            fingerprint=self.run.fingerprint,
            bounds=(self.bounds.lo, self.bounds.hi),
            network=self.deciding_network,
            counts=status_counts(samples),
            environments=tuple(sorted({cell.environment for cell in cells} - {""})),
            subset_rows=kept.num_rows,
            borderline_rows=borderline.num_rows,
            subset=self._write_rows(SUBSET, kept),
            borderline=self._write_rows(BORDERLINE, borderline),
        )
        data = scores_parquet(samples, chunks, header)
        name = content_name(self.run.attempt.number, data)
        self.run.write(part_file(name), data)
        return Part(name, tuple(chunks), header)

    def _write_rows(self, folder: str, rows: pa.Table) -> str | None:
        """Writes rows with their bytes to a new file; returns its stem, or None without rows."""
        if not rows.num_rows:
            return None
        data = image_parquet(rows)
        name = content_name(self.run.attempt.number, data)
        self.run.write(f"{folder}/{name}.parquet", data)
        return name

    def _score_buckets(self, cells: Sequence[Cell]) -> list[int]:
        """Histogram of the deciding network's scores, for the metrics; empty without one."""
        if self.deciding_network is None:
            return []
        column = score_column(self.deciding_network)
        scores = [cell.samples[column] for cell in cells if column in cell.samples.column_names]
        found = [score.drop_null().to_numpy() for score in scores]
        return score_buckets(np.concatenate(found)) if found else []

    def _split(self, samples: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The rows surely kept and the rows between the bounds, bytes included."""
        if self.deciding_network is None:
            listed = samples.filter(pc.equal(samples["status"], Status.LISTED.value))
            return subset_rows(_copies(listed)), subset_rows(samples.slice(0, 0))
        scored = pc.equal(samples["status"], Status.SCORED.value)
        score = samples[score_column(self.deciding_network)]
        sure = pc.and_(scored, pc.fill_null(pc.greater_equal(score, self.bounds.hi), False))
        reach = pc.and_(scored, pc.fill_null(pc.greater_equal(score, self.bounds.lo), False))
        between = pc.and_not(reach, sure)
        return subset_rows(samples.filter(sure)), subset_rows(samples.filter(between))


def unread_report(cells: Sequence[Cell]) -> pa.Table:
    """The reports of shards that could not be read."""
    rows = [{UNREAD: json.dumps(asdict(cell.unread))} for cell in cells if cell.unread]
    return pa.Table.from_pylist(rows, schema=_REPORT)


def sign_of_life() -> pa.Table:
    """The report of a slice that moves although no part of it is complete."""
    return pa.Table.from_pylist([{}], schema=_REPORT)


def is_final(report: pa.Table) -> bool:
    """True if nothing more can be committed."""
    return report[TAKEN_OVER].null_count + report[REFUSED].null_count < 2 * len(report)


def _copies(listed: pa.Table) -> pa.Table:
    """The rows, each repeated as often as its uid is listed."""
    times = listed[COPIES].to_numpy()
    return listed.take(pa.array(np.repeat(np.arange(len(times)), times)))
