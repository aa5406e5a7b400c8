"""A worker process: reads shards, prepares their chunks, and writes them to shared memory."""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pyarrow as pa

from dfn_ray.images.isolation import Workspace, limit_cpu_time, run_isolated
from dfn_ray.on_ray.cells import Cell, table_to_stream, write_stream
from dfn_ray.on_ray.work import read_cells
from dfn_ray.preparing.processes.memory import Block
from dfn_ray.preparing.processes.messages import (
    IDLE,
    ISOLATING,
    PREPARING,
    READING,
    Done,
    Failed,
    Free,
    Job,
    NewBlock,
    Prepared,
    Progress,
    Request,
)
from dfn_ray.schema import Reason

SLOTS = 2
"""Chunks that a worker holds: one that it prepares, and one that the owner scores."""


def serve(connection: Connection, progress: Progress) -> None:
    """Answers the owner's requests until it closes the connection."""
    worker = _Worker(connection, progress)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the owner has ended
        while True:
            progress.begin(IDLE, time.monotonic())
            worker.answer(connection.recv())


class _Worker:
    def __init__(self, connection: Connection, progress: Progress) -> None:
        self._connection, self._progress = connection, progress
        self._job: Job = connection.recv()
        self._slots = [_Slot(number, self._announce) for number in range(SLOTS)]
        self._free = deque(self._slots)

    def answer(self, request: Request | Free) -> None:
        if isinstance(request, Free):
            self._free.append(self._slots[request.slot])
            return
        try:
            isolated = request.isolated
            for work in request.works:
                self._begin(READING)
                for cell in read_cells(work, self._job.pool, report_unread=True):
                    slot = self._free_slot()
                    self._send(cell if cell.unread else self._prepared(cell, slot, isolated), slot)
                    isolated = False
                    self._begin(READING)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # noqa: BLE001  raised again by the owner
            self._connection.send(_sendable(error))
        else:
            self._connection.send(Done())

    def _prepared(self, cell: Cell, slot: _Slot, isolated: bool) -> Cell:
        self._begin(PREPARING)
        run = self._run_isolated if isolated else partial(_run_here, begin=self._begin)
        try:
            return self._job.stage(cell, workspace=Workspace(run, slot.array))
        finally:
            limit_cpu_time(0)

    def _run_isolated(
        self, work: Callable[[int], None], count: int, *, timeout_s: float
    ) -> dict[int, Reason]:
        self._begin(ISOLATING)
        faults = run_isolated(work, count, timeout_s=timeout_s)
        self._begin(PREPARING)
        return faults

    def _begin(self, state: int) -> None:
        self._progress.begin(state, time.monotonic())

    def _free_slot(self) -> _Slot:
        self._begin(IDLE)
        while not self._free:
            self.answer(self._connection.recv())
        slot = self._free.popleft()
        slot.reset()
        return slot

    def _send(self, cell: Cell, slot: _Slot) -> None:
        names = cell.inputs.column_names if cell.inputs is not None else []
        blocks = {
            name: place
            for name in names
            if cell.inputs is not None and (place := slot.place_of(cell.inputs[name])) is not None
        }
        block, size = slot.write(cell.samples)
        inputs = None
        if cell.inputs is not None:
            inputs = table_to_stream(cell.inputs.drop_columns(list(blocks))).to_pybytes()
        self._connection.send(
            Prepared(
                chunk=cell.chunk,
                slot=slot.number,
                samples_bytes=size,
                samples_block=block,
                inputs=inputs,
                blocks=blocks,
                unread=cell.unread,
            )
        )

    def _announce(self, slot: int, number: int, block: Block) -> None:
        self._connection.send(NewBlock(slot, number, block.size))
        reduction.send_handle(self._connection, block.descriptor, os.getppid())
        block.close_descriptor()


class _Slot:
    """The memory of one chunk: a block per array, in the order in which they are requested."""

    def __init__(self, number: int, announce: Callable[[int, int, Block], None]) -> None:
        self.number, self._announce = number, announce
        self._blocks: list[Block] = []
        self._used = 0

    def reset(self) -> None:
        self._used = 0

    def array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._next(size).array(shape, dtype)

    def write(self, table: pa.Table) -> tuple[int, int]:
        """Writes a table as an Arrow stream; returns its block and its size."""
        sizes = pa.MockOutputStream()
        write_stream(sizes, table)
        size = sizes.size()
        block = self._next(size)
        write_stream(pa.FixedSizeBufferWriter(pa.py_buffer(block.map)), table)
        return self._used - 1, size

    def place_of(self, column: pa.ChunkedArray) -> tuple[int, int, int] | None:
        """Block, rows and width of a column of fixed-size binary values at a block's start."""
        if column.num_chunks != 1 or not pa.types.is_fixed_size_binary(column.type):
            return None
        data = column.chunk(0).buffers()[1]
        for number, block in enumerate(self._blocks[: self._used]):
            if data is not None and data.address == block.address and not column.chunk(0).offset:
                return number, len(column), column.type.byte_width
        return None

    def _next(self, size: int) -> Block:
        number, self._used = self._used, self._used + 1
        if number < len(self._blocks) and self._blocks[number].suits(size):
            return self._blocks[number]
        block = Block.create(size)
        self._announce(self.number, number, block)
        self._blocks[number : number + 1] = [block]
        return block


def _run_here(
    work: Callable[[int], None], count: int, *, timeout_s: float, begin: Callable[[int], None]
) -> dict[int, Reason]:
    """Calls `work(0) ... work(count - 1)` in this process; an item that ends it ends the worker."""
    for index in range(count):
        begin(PREPARING)
        limit_cpu_time(timeout_s)
        work(index)
    limit_cpu_time(0)
    begin(PREPARING)
    return {}


def _sendable(error: Exception) -> Failed:
    """The error for the owner; its text if it cannot be pickled."""
    try:
        reduction.ForkingPickler.dumps(error)
    except Exception:  # noqa: BLE001  whatever a foreign class raises
        error = RuntimeError("".join(traceback.format_exception(error)))
    return Failed(error)
