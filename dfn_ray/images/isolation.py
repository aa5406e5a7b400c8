"""Isolation of work that may kill or hang its process, so that only the items that do are lost.

Image decoders are C code that processes untrusted input. A forked child works through the items and
records the current one in shared memory. If the child dies or hangs, that item is retried once in a
fresh child, and fails if it ends that child too. The retry protects items that were not at fault:
the kernel may have killed the child for memory, or the machine may have stalled.

Results are returned in shared memory that the caller allocates (`shared_array`) and `work` fills.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import logging
import math
import mmap
import os
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np

from dfn_ray.schema import Reason

_LOG = logging.getLogger(__name__)

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
WALL_FACTOR = 5.0
"""An item may take this many times its limit of CPU time, so that a busy machine ends none."""
_POLL_S = 0.002  # only where the system has no pidfd


def shared_array(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Returns zeros that a forked child and its parent share; freed with the last reference."""
    size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = mmap.mmap(-1, max(size_bytes, 1))
    return np.frombuffer(memory, dtype, count=math.prod(shape)).reshape(shape)


def run_isolated(work: Callable[[int], None], count: int, *, timeout_s: float) -> dict[int, Reason]:
    """Calls `work(0) ... work(count - 1)` in a forked child; returns the items that ended it.

    The result maps items that killed or hung the child to their reason. `timeout_s` limits the CPU
    time of an item, and WALL_FACTOR times that its time. `work` must write its
    results to shared memory, be safe to repeat, and use no lock that another thread may hold when
    the process forks. An exception in `work` counts as a crash.

    Safe while the caller has running threads and torch loaded. The child dies with its parent (on
    Linux) and is killed if the caller is interrupted.
    """
    faults: dict[int, Reason] = {}
    suspect = -1
    first = 0
    while first < count:
        progress = _Progress(first)
        overdue = _run_child(work, count, progress, timeout_s)
        stopped_at = progress.index
        if stopped_at < count:
            reason = Reason.DECODE_TIMEOUT if overdue else Reason.DECODE_CRASHED
            if stopped_at == suspect:
                faults[stopped_at] = reason
                _LOG.warning("item %d of %d: %s, twice; skipping it", stopped_at, count, reason)
                stopped_at += 1
            else:
                suspect = stopped_at
        first = stopped_at
    return faults


class Run(Protocol):
    """Calls `work` on 0 ... count - 1; returns the reasons of the items that ended a process."""

    def __call__(  # noqa: D102
        self, work: Callable[[int], None], count: int, *, timeout_s: float
    ) -> dict[int, Reason]: ...


@dataclass(frozen=True)
class Workspace:
    """The isolation of items from each other, and the memory for their results."""

    run: Run = run_isolated
    array: Callable[[tuple[int, ...], Any], np.ndarray] = shared_array
    """(shape, dtype) -> an array that forked children share."""


FORKED = Workspace()
"""A forked child for all items, as long as it lives."""


class _Progress:
    """The child's current item and its start time, in shared memory."""

    def __init__(self, index: int) -> None:
        self._at = shared_array((2,), np.float64)  # exact for integers below 2**53
        self.begin(index)

    def begin(self, index: int) -> None:
        # The time is set first, so that a reader never sees a new item with an old time.
        self._at[1] = time.monotonic()
        self._at[0] = index

    @property
    def index(self) -> int:
        return int(self._at[0])

    @property
    def since(self) -> float:
        return float(self._at[1])


def _run_child(
    work: Callable[[int], None], count: int, progress: _Progress, timeout_s: float
) -> bool:
    """Forks a child and reaps it once it ends or an item takes too long; True if one did."""
    parent = os.getpid()
    with warnings.catch_warnings():
        # Python 3.12 warns about forks beside threads. This one is safe: it takes none of their
        # locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _work_and_exit(work, count, progress, parent, timeout_s)
    child = _Child(pid)
    is_overdue = True
    try:
        while (left_s := progress.since + WALL_FACTOR * timeout_s - time.monotonic()) > 0:
            if child.ends_within(left_s):
                is_overdue = False
                break
    finally:
        status = child.reap()
    return is_overdue or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF)


def limit_cpu_time(seconds: float) -> None:
    """Lets SIGPROF end this process when it has used this much more CPU time; 0 removes it."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def die_with(parent: int) -> None:
    """Makes the kernel kill this process with its parent, and first when memory runs out.

    On Linux only. Exits if the parent is dead already.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _volunteer_for_oom_killer()
    if os.getppid() != parent:  # the parent died before prctl
        os._exit(1)


def _work_and_exit(
    work: Callable[[int], None], count: int, progress: _Progress, parent: int, timeout_s: float
) -> NoReturn:
    """Processes the items from `progress.index` on and exits without the parent's exit handlers."""
    status = 1
    try:
        die_with(parent)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPROF):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.disable()  # the parent reports the item
        gc.disable()  # a collection would run finalizers of the parent's objects
        for index in range(progress.index, count):
            progress.begin(index)
            limit_cpu_time(timeout_s)
            work(index)
        progress.begin(count)
        status = 0
    except BaseException:  # noqa: BLE001  the child must not return into the parent's stack
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _volunteer_for_oom_killer() -> None:
    """Makes the kernel kill this process, not its parent, when memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


class _Child:
    """A forked process, held by pidfd if the system has it, so that its number is not reused."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._fd: int | None = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # kernels before 5.3, sandboxes
                self._fd = os.pidfd_open(pid)

    def ends_within(self, timeout_s: float) -> bool:
        """Returns True once the child has ended, False after `timeout_s`."""
        if self._fd is not None:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            return bool(poll.poll(math.ceil(timeout_s * 1000)))
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    return True
            except ChildProcessError:  # SIGCHLD is ignored, so the kernel reaped it
                return True
            time.sleep(_POLL_S)
        return False

    def reap(self) -> int:
        """Kills the child if it is still running; returns its status as of `os.waitpid`.

        Waits for it, so that no zombie remains; 0 if the kernel has reaped it.
        """
        status = 0
        with contextlib.suppress(ProcessLookupError):
            if self._fd is None:
                os.kill(self._pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(self._pid, 0)
        if self._fd is not None:
            os.close(self._fd)
        return status
