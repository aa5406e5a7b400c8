"""Passes over the parts or the subset of a run: selected columns, in order, with read-ahead.

Memory is bounded. On S3 the scores of a part take one request, and so do other columns of a usual
part, which is then read as a whole: a request costs more than the bytes between the columns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import pyarrow as pa

from dfn_ray.run.layout import SUBSET, part_file
from dfn_ray.run.opened import Run
from dfn_ray.run.parts import is_near_footer
from dfn_ray.run.sealed_parquet import SCORES_TAIL_BYTES, WHOLE_BYTES

READ_THREADS = 32
"""Files read in parallel: a pass takes the time of its requests, divided by this."""
AHEAD = 2 * READ_THREADS
"""Files read ahead; bounds the memory to as many tables."""

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(items: Iterable[Item], read: Callable[[Item], Read]) -> Iterator[Read]:
    """The results of `read` for all items, in their order, with the next ones read ahead.

    No thread is left when the iteration ends, completed or not.
    """
    pool = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="scan")
    left = iter(items)
    try:
        reading = deque(pool.submit(read, item) for item in islice(left, AHEAD))
        while reading:
            found = reading.popleft().result()
            reading.extend(pool.submit(read, item) for item in islice(left, 1))
            yield found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def scan_parts(
    run: Run, columns: Sequence[str], names: Sequence[str] | None = None
) -> Iterator[tuple[str, pa.Table]]:
    """Name and table of each named part, with the given columns; None: of all valid parts."""
    chosen = run.part_names() if names is None else names
    return read_ahead(chosen, lambda name: (name, read_columns(run, name, columns)))


def scan_subset(
    run: Run, columns: Sequence[str], files: Sequence[str] | None = None
) -> Iterator[tuple[str, pa.Table]]:
    """Name and table of each named subset file, with the given columns; None: of all files.

    For columns without images: each file is read as a whole.
    """
    chosen = run.subset_files() if files is None else files
    return read_ahead(
        chosen, lambda name: (name, run.read_table(f"{SUBSET}/{name}", list(columns)))
    )


def read_columns(run: Run, name: str, columns: Sequence[str]) -> pa.Table:
    """The given columns of a part.

    A part without samples may lack score columns; they are added as empty columns.
    """
    head_bytes = 0 if all(map(is_near_footer, columns)) else WHOLE_BYTES
    table = run.read_table(
        part_file(name), [*columns], head_bytes=head_bytes, tail_bytes=SCORES_TAIL_BYTES
    )
    for column in columns:
        if column not in table.column_names and table.num_rows == 0:
            table = table.append_column(column, pa.array([], pa.float32()))
    return table.select(list(columns))
