"""Object store size of every node against the bytes that the recipe keeps in flight there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from dfn_ray.config import Recipe
from dfn_ray.console.tables import size
from dfn_ray.doctor.node_facts import Facts
from dfn_ray.dry_run.finding import Finding, change
from dfn_ray.network.packed import PackedNetwork
from dfn_ray.pool import PoolReport

CELLS_PER_DECODER = 2
"""Cells per decode task: the one it produces and the one that waits."""
CELLS_PER_SCORER = 2
"""Tasks that Ray Data keeps in flight per actor:
RAY_DATA_ACTOR_DEFAULT_MAX_TASKS_IN_FLIGHT_TO_MAX_CONCURRENCY_FACTOR."""
USABLE_FRACTION = 0.5
"""Share of the store that Ray Data fills before it applies backpressure:
RAY_DATA_OBJECT_STORE_MEMORY_LIMIT_FRACTION."""
FULL_DISK_FRACTION = 0.95
"""Ray stops spilling once the disk is this full: local_fs_capacity_threshold."""


@dataclass(frozen=True)
class InFlight:
    """Bytes that a recipe keeps in the object stores."""

    cell_bytes: int
    """A decoded chunk: its encoded images, and pixels and tokens for every network."""
    part_bytes: int
    """A part that waits for its commit: the encoded images of its kept samples."""
    networks_bytes: int
    """All networks; each node holds one copy."""

    def on_node(self, decoders: int, scorers: int) -> int:
        """Bytes on a node with this many concurrent decode tasks and scorers."""
        if not decoders and not scorers:
            return 0
        cells = CELLS_PER_DECODER * decoders + CELLS_PER_SCORER * scorers
        commits = self.part_bytes if decoders else 0
        return ceil((self.cell_bytes * cells + commits) / USABLE_FRACTION) + self.networks_bytes


def in_flight(recipe: Recipe, networks: Sequence[PackedNetwork], report: PoolReport) -> InFlight:
    """Bytes that the recipe keeps in flight, for images of the pool's mean size."""
    rows = recipe.pool.chunk_rows
    sample_bytes = report.bytes / max(1, report.samples_estimated)
    images = min(recipe.pool.chunk_bytes, ceil(rows * sample_bytes))
    pixels = sum(3 * h * w for h, w in {network.transform.size for network in networks})
    tokens = sum({4 * network.tokenizer.context_length for network in networks})
    kept = recipe.select.keep_fraction or 1.0
    return InFlight(
        cell_bytes=images + rows * (pixels + tokens),
        part_bytes=ceil(recipe.execution.chunks_per_part * images * kept),
        networks_bytes=sum(a.nbytes for network in networks for a in network.state.values()),
    )


def memory_findings(recipe: Recipe, flight: InFlight, facts: Sequence[Facts]) -> Iterator[Finding]:
    """Yields findings on object stores, /dev/shm and spill disks, each for the worst node."""
    needs = {
        fact.node.id: flight.on_node(*_concurrency(recipe, fact.node.resources)) for fact in facts
    }
    worst = min(facts, key=lambda fact: _store_bytes(fact) / max(1, needs[fact.node.id]))
    store, need = _store_bytes(worst), needs[worst.node.id]
    decoders, scorers = _concurrency(recipe, worst.node.resources)
    text = (
        f"{size(store)} on {worst.node.host}; its decode tasks ({decoders}) and scorers "
        f"({scorers}) keep up to {size(need)} in it = 2 x (2 chunks of "
        f"{size(flight.cell_bytes)} for each + a part of {size(flight.part_bytes)}) + networks of "
        f"{size(flight.networks_bytes)}"
    )
    if store < need:
        yield change(
            "object store",
            f"{text}: decoding would wait and chunks would be spilled to disk. Use `ray start "
            f"--object-store-memory={need}` there, or lower pool.chunk_rows or "
            "execution.chunks_per_part",
        )
    else:
        yield Finding("object store", text)

    worst = min(facts, key=lambda fact: fact.shm_bytes - _store_bytes(fact))
    store, text = _store_bytes(worst), f"{size(worst.shm_bytes)} on {worst.node.host}"
    if worst.shm_bytes < store:
        yield change(
            "/dev/shm",
            f"{text}, less than its object store of {size(store)}: Ray puts the store on disk, "
            "which is slower. Start the container with a larger --shm-size (on Kubernetes, mount "
            "an emptyDir with medium: Memory)",
        )
    else:
        yield Finding("/dev/shm", f"{text}, object store {size(store)}")

    worst = min(facts, key=lambda fact: _spillable_bytes(fact) - _store_bytes(fact))
    store, text = (
        _store_bytes(worst),
        f"{size(max(0, _spillable_bytes(worst)))} on {worst.node.host}",
    )
    if _spillable_bytes(worst) < store:
        yield change(
            "spill disk",
            f"{text} can be used before the disk is {FULL_DISK_FRACTION:.0%} full and Ray stops "
            f"spilling; need {size(store)}, the size of the object store. Free disk space, or use "
            "another disk with `ray start --object-spilling-directory`",
        )
    else:
        yield Finding("spill disk", f"{text} free for spilling, object store {size(store)}")


def _concurrency(recipe: Recipe, resources: Mapping[str, float]) -> tuple[int, int]:
    """Upper bounds on the decode tasks and on the scorers that run on a node at once."""
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    decoders = int(cpus / recipe.decode.cpus)
    if recipe.scorers.gpus:
        scorers = int(gpus / recipe.scorers.gpus)
    elif recipe.scorers.cpus:
        scorers = int(cpus / recipe.scorers.cpus)
    else:
        scorers = recipe.scorers.max_size if cpus else 0
    return decoders, min(scorers, recipe.scorers.max_size)


def _store_bytes(fact: Facts) -> int:
    return int(fact.node.resources.get("object_store_memory", 0))


def _spillable_bytes(fact: Facts) -> int:
    return fact.disk_free_bytes - int(fact.disk_bytes * (1 - FULL_DISK_FRACTION))
