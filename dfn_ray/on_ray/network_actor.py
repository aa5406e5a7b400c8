"""The actors that run networks: a stage that is built on the device and maps blocks of cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import ray

from dfn_ray.on_ray.actor_pools import ActorSupervisor
from dfn_ray.on_ray.cells import Cell, Stage, map_cells


class NetworkActor:
    """A stage with networks, as an actor of Ray Data.

    Each pool has a subclass, because Ray shows actors by the name of their class.
    """

    def __init__(self, *, start: Callable[[], Stage], supervisor: ActorSupervisor) -> None:
        with supervisor.supervised_start():
            self._stage = start()
        self._name = ray.get_runtime_context().get_actor_id() or ""

    def __call__(self, block: pa.Table) -> pa.Table:
        """The block with the stage applied to every cell."""
        return map_cells(block, stage=self._mapped)

    def _mapped(self, cell: Cell) -> Cell:
        return replace(self._stage(cell), scorer=self._name)
