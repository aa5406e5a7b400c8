"""Every pass over the parts or the subset of a run: the columns asked for, in order, read ahead, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import pyarrow as pa

from dfn_ray.run.layout import SUBSET, part_file
from dfn_ray.run.opened import Run

READ_THREADS = 32
"""Files read side by side: the time of a pass is that of the requests, two or three a file, over this number."""
AHEAD = 2 * READ_THREADS
"""Files that are read before they are asked for; bounds the memory to so many tables."""

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(items: Iterable[Item], read: Callable[[Item], Read]) -> Iterator[Read]:
    """What `read` gives for each item, in their order, the next ones read meanwhile.

    However the loop over it ends, no thread is left.
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
    """The rows of the parts of those names, None: of all that count, with those columns: name and table of each."""
    chosen = run.part_names() if names is None else names
    return read_ahead(chosen, lambda name: (name, read_columns(run, name, columns)))


def scan_subset(
    run: Run, columns: Sequence[str], files: Sequence[str] | None = None
) -> Iterator[tuple[str, pa.Table]]:
    """The rows of those files of the subset, None: of all, with those columns: name and table of each.

    For columns without images: each file is held as a whole.
    """
    chosen = run.subset_files() if files is None else files
    return read_ahead(
        chosen, lambda name: (name, run.read_table(f"{SUBSET}/{name}", list(columns)))
    )


def read_columns(run: Run, name: str, columns: Sequence[str]) -> pa.Table:
    """Those columns of a part. One that the part lacks is null: a part without a sample has never met a network."""
    table = run.read_table(part_file(name), [*columns])
    for column in columns:
        if column not in table.column_names and table.num_rows == 0:
            table = table.append_column(column, pa.array([], pa.float32()))
    return table.select(list(columns))
