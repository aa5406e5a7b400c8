"""The two limits of a run, decode and forward, without Ray: each measured alone, in this process.

A run cannot exceed the lower of them. The pilot measures them in tasks, benchmarks/end_to_end.py in
processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from dfn_ray.config import Pool
from dfn_ray.filtering.scoring.scorer import Scorer
from dfn_ray.on_ray.cells import Cell
from dfn_ray.pool import Shard, iter_chunks
from dfn_ray.preparing.prepare import Preparation, prepare

T = TypeVar("T")


def read_cells(shard: Shard, pool: Pool, *, rows: int | None = None) -> list[Cell]:
    """The chunks of a shard as cells, up to and including the one that reaches `rows` samples."""
    cells: list[Cell] = []
    for chunk, samples in iter_chunks(shard, pool):
        cells.append(Cell(chunk=chunk, samples=samples))
        if rows is not None and chunk.first_row + chunk.rows >= rows:
            break
    return cells


def prepare_cells(cells: Sequence[Cell], preparation: Preparation) -> list[Cell]:
    """The cells, decoded and tokenized."""
    return [prepare(cell, preparation=preparation) for cell in cells]


def score_cells(cells: Sequence[Cell], scorer: Scorer) -> list[Cell]:
    """The cells, scored."""
    return [scorer(cell) for cell in cells]


def rows_of_cells(cells: Sequence[Cell]) -> int:
    """Samples in the cells, bad ones included."""
    return sum(cell.chunk.rows for cell in cells)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result of `work` and the seconds it took."""
    begin = time.perf_counter()
    return work(), time.perf_counter() - begin
