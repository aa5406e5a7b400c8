"""Drivers of filtering without Ray and networks, which can be stopped at every write to storage."""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from dfn_ray.config import Pool, Recipe, recipe_from, recipe_values
from dfn_ray.filtering import chain, filter_pool
from dfn_ray.filtering.chain import Committed, remaining_work
from dfn_ray.filtering.preflight import refuse_other_rule
from dfn_ray.filtering.scoring.bounds import Bounds
from dfn_ray.filtering.scoring.commit import Committer
from dfn_ray.filtering.subset import export_subset, uid_list_subset
from dfn_ray.on_ray.cells import Cell, Stage
from dfn_ray.on_ray.work import Work
from dfn_ray.pool import iter_chunks, list_pool, listing_table
from dfn_ray.preparing.statuses import mark, undecided_rows
from dfn_ray.run import (
    Acceptance,
    Ledger,
    Part,
    Run,
    RunIdentity,
    RunKind,
    bounds_file,
    existing_run,
    scan_ledger,
    start_run,
)
from dfn_ray.schema import SIZE_FIELDS, Status
from dfn_ray.storage import Store

WRITES = (
    "write",
    "write_stream",
    "create",
    "replace",
    "delete",
    "delete_folder",
    "remove_leftovers",
)
"""The methods that change storage."""


def recipe_of(
    run: Path | str,
    pool: Path,
    keep_fraction: float,
    *,
    networks: Sequence[str] = ("dfn",),
    deciding: str | None = None,
) -> Recipe:
    """The recipe of a driver; its networks are some of SCORES."""
    select = {"keep_fraction": keep_fraction} | ({"network": deciding} if deciding else {})
    return recipe_from(
        {
            "run_uri": str(run),
            "pool": {"uri": [str(pool)], "chunk_rows": 5},
            "networks": [{"name": name, "model": "local-dir:/none"} for name in networks],
            "select": select,
        }
    )


def score_of(uid: str) -> float:
    """A score of a fake network: a function of the sample."""
    return int(hashlib.md5(uid.encode()).hexdigest()[:8], 16) / 2**32


SCORES: dict[str, Callable[[str], float]] = {
    "dfn": score_of,
    "against": lambda uid: 1 - score_of(uid),
}
"""Networks, whose scores are functions of the uid."""

NEAR, TOO_HIGH, TOO_LOW = (0.35, 0.8), (0.8, 0.9), (0.1, 0.2)
NO_BYTES = (float("inf"), float("inf"))
"""Bounds: around the thresholds of the tests; above them, so that bytes of kept samples are not
written; below them, so that rows must be removed from the subset again; those of `score`, with
which no bytes are written."""


def filter_without_ray(
    recipe: Recipe, *, part_chunks: int = 2, bounds: tuple[float, float] = NEAR
) -> dict:
    """`filter_pool` with fake scores: the same writes, in the same order, in this process."""
    if (existing := existing_run(recipe.run_uri)) is not None:
        refuse_other_rule(existing, recipe)
    run, ledger = score_without_ray(recipe, part_chunks=part_chunks, bounds=bounds)
    with no_ray():
        return filter_pool._settle_run(run, ledger, recipe)


def score_without_ray(
    recipe: Recipe,
    *,
    part_chunks: int = 2,
    bounds: tuple[float, float] = NO_BYTES,
    accept_changed_shards: bool | None = None,
) -> tuple[Run, Ledger]:
    """`score_pool` with fake scores."""
    shards = list_pool(recipe.pool).shards
    run = start_run(
        recipe.run_uri,
        RunIdentity(
            kind=RunKind.FILTER,
            fingerprint={"networks": {network.name: {} for network in recipe.networks}},
            listing=listing_table(shards),
        ),
        recipe=recipe_values(recipe),
        accept=Acceptance(changed_shards=accept_changed_shards),
    )
    ledger = scan_ledger(run.store, run.fingerprint)
    name = bounds_file(recipe.deciding_network)
    found = run.create_json(name, {"lo": str(bounds[0]), "hi": str(bounds[1])})
    committer = Committer(
        run, Bounds(float(found["lo"]), float(found["hi"])), recipe.deciding_network
    )
    scored = partial(_scored, networks=[network.name for network in recipe.networks])
    for part in _parts_of(
        remaining_work(shards, ledger), recipe.pool, scored, committer, part_chunks
    ):
        ledger.add(part.name, part.chunks, part.header.counts)
    return run, ledger


def _parts_of(
    work: Sequence[Work], pool: Pool, stage: Stage, committer: Committer, part_chunks: int
) -> Iterator[Part]:
    """The committed parts of some work, with that many chunks each."""
    cells: list[Cell] = []
    for item in work:
        for chunk, samples in iter_chunks(item.shard, pool, skip=item.skip, last=item.last):
            cells.append(stage(Cell(chunk=chunk, samples=samples)))
            if len(cells) == part_chunks:
                yield committer.commit(cells)
                cells.clear()
    if cells:
        yield committer.commit(cells)


def keep_without_ray(
    work: Sequence[Work], *, pool: Pool, stage: Stage, committer: Committer, **_: Any
) -> Iterator[Committed]:
    """`chain.keep_stream` in this process."""
    for part in _parts_of(work, pool, stage, committer, 2):
        yield Committed(part.name, part.chunks, dict(part.header.counts))


@contextmanager
def no_ray() -> Iterator[None]:
    """Runs in this process what would run in Ray tasks."""
    with ExitStack() as patches:

        def put(module: Any, **instead: Any) -> None:
            for name, value in instead.items():
                patches.enter_context(patch.object(module, name, value))

        for module in (filter_pool, export_subset):
            put(
                module,
                connect=_nothing,
                run_in_tasks=lambda items, function, *_: map(function, items),
            )
        put(uid_list_subset, connect=_nothing, check_ray_reachable=_nothing)
        put(chain, keep_stream=keep_without_ray)
        yield


def _nothing() -> None:
    pass


def scored_cells(recipe: Recipe) -> Iterator[list[Cell]]:
    """All cells of the pool, shard by shard."""
    for shard in list_pool(recipe.pool).shards:
        chunks = iter_chunks(shard, recipe.pool)
        yield [_scored(Cell(chunk=chunk, samples=samples), ("dfn",)) for chunk, samples in chunks]


def _scored(cell: Cell, networks: Sequence[str]) -> Cell:
    samples = cell.samples
    rows = undecided_rows(samples)
    for field in SIZE_FIELDS:
        samples = samples.append_column(field, pa.array([8] * len(samples), pa.int32()))
    uids = samples["uid"].to_pylist()
    for name in networks:
        scores = np.array([SCORES[name](uid) for uid in uids], np.float32)
        samples = samples.append_column(f"score_{name}", pa.array(scores))
    samples = mark(samples, rows, [None] * len(rows), otherwise=Status.SCORED)
    return Cell(chunk=cell.chunk, samples=samples)


@contextmanager
def at_writes(
    meet: Callable[[int, str], None], methods: Sequence[str] = WRITES, *, of: Any = Store
) -> Iterator[list[str]]:
    """Calls `meet(number, "before" or "after")` at each write, from 0; yields the names."""
    made: list[str] = []

    def watched(name: str):
        plain = getattr(of, name)

        def write(*args, **kwargs):
            number = len(made)
            made.append(" ".join([name, *(arg for arg in args if isinstance(arg, str))][:2]))
            meet(number, "before")
            try:
                return plain(*args, **kwargs)
            finally:  # a write that raises has an end as well
                meet(number, "after")

        return patch.object(of, name, write)

    with ExitStack() as patches:
        for name in methods:
            patches.enter_context(watched(name))
        yield made


@dataclass(frozen=True)
class Moment:
    """A moment before or after one of several writes."""

    number: int
    when: str
    name: str
    """The name of the write, for messages."""

    def __str__(self) -> str:
        return f"{self.when} write {self.number}, {self.name}"

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Adds this moment to the notes of any exception."""
        try:
            yield
        except Exception as error:
            error.add_note(str(self))
            raise


def moments_of(
    work: Callable[[], object], methods: Sequence[str] = WRITES, *, of: Any = Store
) -> list[Moment]:
    """The moments before and after each write of some work, which is run for that."""
    with at_writes(lambda number, when: None, methods, of=of) as made:
        work()
    pairs = product(enumerate(made), ("before", "after"))
    return [Moment(number, when, name) for (number, name), when in pairs]


def dies_at(
    moment: Moment, work: Callable[[], object], methods: Sequence[str] = WRITES, *, of: Any = Store
) -> None:
    """Runs the work in a separate process that exits abruptly at that moment."""

    def meet(number: int, when: str) -> None:
        if (number, when) == (moment.number, moment.when):
            os._exit(_DIED)

    child = os.fork()
    if not child:
        try:
            with at_writes(meet, methods, of=of):
                work()
        except BaseException:  # noqa: BLE001  the child must not return into pytest
            os.write(2, traceback.format_exc().encode())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == _DIED, f"outlived {moment}"


_DIED = 9


def expected(pool: Path, keep_fraction: float) -> set[str]:
    """The uids that a plain sort keeps."""
    recipe = recipe_of(pool, pool, keep_fraction)
    uids = [
        uid
        for shard in list_pool(recipe.pool).shards
        for _, samples in iter_chunks(shard, recipe.pool)
        for uid in samples["uid"].to_pylist()
    ]
    best = sorted(uids, key=lambda uid: (-np.float32(score_of(uid)), uid))
    return set(best[: int(keep_fraction * len(uids) + 1e-9)])
