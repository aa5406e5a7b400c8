"""Drivers of filtering without Ray and networks, whose every write to storage can be stopped at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from dfn_ray.config import Recipe, recipe_from, recipe_values
from dfn_ray.filtering import filter_pool
from dfn_ray.filtering.bounds import Bounds
from dfn_ray.filtering.commit import Committer
from dfn_ray.filtering.preflight import refuse_other_rule
from dfn_ray.filtering.stream import work_left
from dfn_ray.flow.cells import Cell
from dfn_ray.flow.statuses import mark, open_rows
from dfn_ray.pool import iter_chunks, list_pool, listing_table
from dfn_ray.run import BOUNDS, SCORED, open_run, scan_ledger, start_run
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
"""All that changes storage."""


def recipe_of(
    run: Path,
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
    """What a network might say: a function of the sample."""
    return int(hashlib.md5(uid.encode()).hexdigest()[:8], 16) / 2**32


SCORES: dict[str, Callable[[str], float]] = {
    "dfn": score_of,
    "against": lambda uid: 1 - score_of(uid),
}
"""Networks, which are functions of the uid."""

NEAR, TOO_HIGH, TOO_LOW = (0.35, 0.8), (0.8, 0.9), (0.1, 0.2)
"""Bounds: around the thresholds of the tests; above them, so that bytes of kept samples do not travel; below them, so
that rows have to be taken out of the subset again."""


def filter_without_ray(
    recipe: Recipe, *, part_chunks: int = 2, bounds: tuple[float, float] = NEAR
) -> dict:
    """`filter_pool` with scores out of the air: the same writes, in the same order, in this process."""
    if Store(recipe.run_uri).exists("run.json"):
        refuse_other_rule(open_run(recipe.run_uri), recipe.select)
    shards = list_pool(recipe.pool).shards
    run = start_run(
        recipe.run_uri,
        kind=SCORED,
        recipe=recipe_values(recipe),
        fingerprint={"networks": {network.name: {} for network in recipe.networks}},
        listing=listing_table(shards),
    )
    ledger = scan_ledger(run.store, run.fingerprint)
    found = run.create_json(BOUNDS, {"lo": str(bounds[0]), "hi": str(bounds[1])})
    committer = Committer(
        run, Bounds(float(found["lo"]), float(found["hi"])), recipe.deciding_network
    )
    cells: list[Cell] = []

    def commit() -> None:
        part = committer.commit(cells)
        ledger.add(part.name, part.chunks, part.header.counts)
        cells.clear()

    for work in work_left(shards, ledger):
        chunks = iter_chunks(work.shard, recipe.pool, skip=work.skip, last=work.last)
        for chunk, samples in chunks:
            cell = Cell(chunk=chunk, samples=samples)
            cells.append(_scored(cell, [network.name for network in recipe.networks]))
            if len(cells) == part_chunks:
                commit()
    if cells:
        commit()
    with no_ray():
        return filter_pool._finalise(run, ledger, recipe)


@contextmanager
def no_ray() -> Iterator[None]:
    """What would be done in tasks of Ray is done here."""
    with (
        patch.object(filter_pool, "connect", lambda: None),
        patch.object(filter_pool, "each", lambda items, each, _: map(each, items)),
    ):
        yield


def _scored(cell: Cell, networks: Sequence[str]) -> Cell:
    samples = cell.samples
    rows = open_rows(samples)
    for field in SIZE_FIELDS:
        samples = samples.append_column(field, pa.array([8] * len(samples), pa.int32()))
    uids = samples["uid"].to_pylist()
    for name in networks:
        scores = np.array([SCORES[name](uid) for uid in uids], np.float32)
        samples = samples.append_column(f"score_{name}", pa.array(scores))
    samples = mark(samples, rows, [None] * len(rows), otherwise=Status.SCORED)
    return Cell(chunk=cell.chunk, samples=samples)


@contextmanager
def at_writes(meet: Callable[[int, str], None]) -> Iterator[list[str]]:
    """Call `meet` with the number of each write, from 0, and "before" or "after" it; yields their names."""
    made: list[str] = []

    def watched(name: str):
        plain = getattr(Store, name)

        def write(self, *args, **kwargs):
            number = len(made)
            made.append(f"{name} {args[0] if args else ''}")
            meet(number, "before")
            result = plain(self, *args, **kwargs)
            meet(number, "after")
            return result

        return patch.object(Store, name, write)

    patches = [watched(name) for name in WRITES]
    for one in patches:
        one.start()
    try:
        yield made
    finally:
        for one in patches:
            one.stop()


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
