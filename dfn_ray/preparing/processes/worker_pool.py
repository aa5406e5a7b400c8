"""The owner's side of the worker processes."""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait

import numpy as np
import pyarrow as pa

from dfn_ray.errors import WorkersFailedError
from dfn_ray.images.isolation import WALL_FACTOR
from dfn_ray.on_ray.cells import Cell, table_of_stream
from dfn_ray.on_ray.work import Work
from dfn_ray.pool.examination import child_environment
from dfn_ray.preparing.processes.memory import Block
from dfn_ray.preparing.processes.messages import (
    Done,
    Failed,
    Free,
    Job,
    NewBlock,
    Prepared,
    Progress,
    Request,
)
from dfn_ray.preparing.processes.server import FORK, START, STATUS
from dfn_ray.preparing.remaining import DEATHS, place_of, remaining_works

_LOG = logging.getLogger(__name__)
STARTS = 3
"""Attempts to start the process that forks workers."""
ENDED_S = 5.0
"""Time in which the process that forks workers ends by itself."""
WATCH_S = 1.0
"""Interval at which a worker that sends nothing is looked at."""


class WorkerPool:
    """Worker processes that read and prepare shards; safe for several threads.

    Create it before the process touches its device or loads anything large.
    """

    def __init__(self, size: int, job: Job) -> None:
        self._server = _Server()
        self._job = job
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        for _ in range(size):
            self._idle.put(None)

    def cells(self, works: Sequence[Work]) -> Generator[Cell, None, None]:
        """The prepared chunks of the works, in order, by one worker; waits until one is idle.

        The tables of a cell are overwritten once the next one is requested. A cell with `unread`
        ends a shard that could not be read. A shard that ends DEATHS workers at the same place is
        left there: its next chunks are missing. Raises what reading and the stage raise.
        """
        left, deaths_here, isolated = list(works), 0, False
        with self._claimed() as place:
            while left:
                worker = place.worker()
                worker.request(left, isolated=isolated)
                for message in worker.messages(WALL_FACTOR * self._job.timeout_s):
                    yield worker.cell(message)
                    worker.free(message.slot)
                    is_unread = message.unread is not None
                    left = remaining_works(left, message.chunk, is_unread=is_unread)
                    deaths_here = 0
                if worker.is_idle:
                    return
                how = place.bury()
                deaths_here += 1
                isolated = deaths_here == 1
                _LOG.warning("a worker process ended (%s) at %s", how, place_of(left[0]))
                if deaths_here == DEATHS:
                    left, deaths_here = left[1:], 0

    @contextmanager
    def _claimed(self) -> Iterator[_Place]:
        place = _Place(self._server, self._job, self._idle.get())
        try:
            yield place
        finally:
            self._idle.put(place.idle_worker())

    def close(self) -> None:
        """Ends all workers."""
        self._server.close()


class _Place:
    """The place of a worker in the pool, which a new one takes if it dies."""

    def __init__(self, server: _Server, job: Job, worker: _Worker | None) -> None:
        self._server, self._job, self._worker = server, job, worker

    def worker(self) -> _Worker:
        if self._worker is None:
            self._worker = _Worker(self._server, self._job)
        return self._worker

    def bury(self) -> str:
        """Ends the worker; returns how it ended."""
        assert self._worker is not None
        worker, self._worker = self._worker, None
        return worker.end()

    def idle_worker(self) -> _Worker | None:
        """The worker if it is idle; one that is not is ended."""
        if self._worker is not None and not self._worker.is_idle:
            self.bury()
        return self._worker


class _Worker:
    """A worker process as its owner sees it."""

    def __init__(self, server: _Server, job: Job) -> None:
        self._server = server
        progress = Block.create(Progress.SIZE)
        self._progress = Progress(progress.array((3,), np.float64))
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = server.fork(theirs.fileno(), progress.descriptor)
        progress.close_descriptor()
        self._connection = Connection(ours.detach())
        self._blocks: dict[tuple[int, int], Block] = {}
        self.is_idle = True
        self._connection.send(job)

    def request(self, works: Sequence[Work], *, isolated: bool) -> None:
        self.is_idle = False
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died: no message will come
            self._connection.send(Request(tuple(works), isolated))

    def free(self, slot: int) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(Free(slot))

    def messages(self, wall_limit_s: float) -> Iterator[Prepared]:
        """The chunks of the request; ends early, `is_idle` still False, if the worker is lost."""
        while True:
            while not wait([self._connection], WATCH_S):
                if self._progress.overdue(wall_limit_s, time.monotonic()):
                    return
            try:
                message = self._connection.recv()
                if isinstance(message, NewBlock):
                    self._map(message, reduction.recv_handle(self._connection))
            except (EOFError, ConnectionResetError):
                return
            if isinstance(message, Prepared):
                yield message
            elif isinstance(message, Failed):
                self.is_idle = True
                raise message.error
            elif isinstance(message, Done):
                self.is_idle = True
                return

    def _map(self, message: NewBlock, descriptor: int) -> None:
        block = Block(descriptor, message.size)
        block.close_descriptor()
        self._blocks[message.slot, message.block] = block

    def cell(self, message: Prepared) -> Cell:
        """The cell of a message, over the worker's memory."""
        block = self._blocks[message.slot, message.samples_block]
        samples = table_of_stream(pa.py_buffer(memoryview(block.map)[: message.samples_bytes]))
        inputs = None
        if message.inputs is not None:
            inputs = table_of_stream(pa.py_buffer(message.inputs))
            for name, (number, rows, width) in message.blocks.items():
                values = self._blocks[message.slot, number].map
                data = pa.py_buffer(memoryview(values)[: rows * width])
                kind = pa.binary(width)
                column = pa.FixedSizeBinaryArray.from_buffers(kind, rows, [None, data])
                inputs = inputs.append_column(name, column)
        return Cell(chunk=message.chunk, samples=samples, inputs=inputs, unread=message.unread)

    def end(self) -> str:
        """Kills the process if it still runs; returns how it ended."""
        with suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        self._connection.close()
        status = self._server.status(self.process)
        if status is None:
            return "the process that started it ended"
        if os.WIFSIGNALED(status):
            return signal.Signals(os.WTERMSIG(status)).name
        return f"exit status {os.waitstatus_to_exitcode(status)}"


class _Server:
    """The process that forks workers, as its owner sees it; started again if it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        variables = {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=child_environment() | variables,
                stdin=subprocess.DEVNULL,
            )
        self._control = Connection(ours.detach())

    def fork(self, connection: int, progress: int) -> int:
        """The process ID of a new worker, which gets these two descriptors."""
        with self._lock:
            for _ in range(STARTS):
                with suppress(EOFError, OSError):
                    return self._ask((FORK, 0), connection, progress)
                self._end()
                self._start()
            raise WorkersFailedError(
                f"the process that starts decoding processes ended {STARTS} times (exit status "
                f"{self._end()}); see the output of this process, and check the node with "
                "`dfn-ray doctor`"
            )

    def status(self, process: int) -> int | None:
        """The status of a worker that has ended or is about to; None if the server has ended."""
        with self._lock, suppress(EOFError, OSError):
            return self._ask((STATUS, process))
        return None

    def _ask(self, command: tuple[str, int], *descriptors: int) -> int:
        self._control.send(command)
        for descriptor in descriptors:
            reduction.send_handle(self._control, descriptor, self._process.pid)
        return self._control.recv()

    def _end(self) -> int:
        self._control.close()  # which ends it
        try:
            return self._process.wait(ENDED_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def close(self) -> None:
        with self._lock:
            self._end()
