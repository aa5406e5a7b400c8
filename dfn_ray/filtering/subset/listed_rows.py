"""The samples of a chunk that a uid list contains, with their number of copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.filtering.part_files import COPIES
from dfn_ray.on_ray.cells import Cell
from dfn_ray.preparing.statuses import mark, undecided_rows, with_bytes_of
from dfn_ray.schema import Reason, Status
from dfn_ray.uids.lookup import UidList


def keep_listed(cell: Cell, *, uids: UidList) -> Cell:
    """The cell with every undecided sample marked as listed or not, and its number of copies.

    Only listed samples keep their bytes.
    """
    rows = undecided_rows(cell.samples)
    times = uids.counts(cell.samples["uid"].take(pa.array(rows)))
    reasons = [None if n else Reason.NOT_LISTED for n in times.tolist()]
    samples = mark(cell.samples, rows, reasons, otherwise=Status.LISTED)
    copies = np.zeros(len(samples), dtype=np.int64)
    copies[rows] = times
    samples = with_bytes_of(samples, pc.equal(samples["status"], Status.LISTED.value))
    return replace(cell, samples=samples.append_column(COPIES, pa.array(copies)))
