"""Run work that may kill or hang its process, and lose only the items that do.

Image decoders are C code fed by strangers. A forked child goes through the items and notes in shared memory
which one it is at; when it dies or stands still, that item is tried once more in a fresh child, and blamed
when it ends that one too. The second try is for the innocent: a child that the kernel killed for memory, or
that stalled with the machine.

Results travel through shared memory that the caller allocates (`shared_array`) and `work` fills.
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
from typing import Any, NoReturn

import numpy as np

from dfn_ray.schema import Reason

_LOG = logging.getLogger(__name__)

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_POLL_S = 0.002  # only where the system has no pidfd


def shared_array(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros that a forked child and its parent both see; freed with the last reference."""
    size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = mmap.mmap(-1, max(size_bytes, 1))
    return np.frombuffer(memory, dtype, count=math.prod(shape)).reshape(shape)


def run_isolated(work: Callable[[int], None], count: int, *, timeout_s: float) -> dict[int, Reason]:
    """Call `work(0) ... work(count - 1)` in a forked child; the items that killed or hung it, with the reason.

    `work` must write its results to shared memory, be safe to repeat, and touch nothing that other threads
    may have locked when the process forked. What it raises ends the child like a crash.

    Safe with threads running and torch loaded in the caller. The child dies with its parent (on Linux), and
    is killed when the caller is interrupted.
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
                _LOG.warning(
                    "item %d of %d: %s, twice; going on without it", stopped_at, count, reason
                )
                stopped_at += 1
            else:
                suspect = stopped_at
        first = stopped_at
    return faults


class _Progress:
    """Which item the child is at, and since when; in shared memory."""

    def __init__(self, index: int) -> None:
        self._at = shared_array((2,), np.float64)  # exact for integers below 2**53
        self.begin(index)

    def begin(self, index: int) -> None:
        # The time first, so that a reader never sees a new item with an old time.
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
    """Fork, watch the child until it ends or one item takes too long, and bury it; True if too long."""
    parent = os.getpid()
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads. The child meets its rule: it takes no lock of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _be_child(work, count, progress, parent)
    child = _Child(pid)
    try:
        while (left_s := progress.since + timeout_s - time.monotonic()) > 0:
            if child.ends_within(left_s):
                return False
        return True
    finally:
        child.bury()


def _be_child(
    work: Callable[[int], None], count: int, progress: _Progress, parent: int
) -> NoReturn:
    """Do the items from `progress.index` on and leave without any of the parent's exit handlers."""
    status = 1
    try:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _volunteer_for_oom_killer()
        if os.getppid() != parent:  # it died before prctl
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.disable()  # the parent says which item it was
        gc.disable()  # a collection would run finalizers of the parent's objects
        for index in range(progress.index, count):
            progress.begin(index)
            work(index)
        progress.begin(count)
        status = 0
    except BaseException:  # noqa: BLE001  the child must not return into the parent's stack
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _volunteer_for_oom_killer() -> None:
    """Make the kernel kill this process, not its parent, when memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


class _Child:
    """A forked process, held by pidfd where the system has one, so that its number cannot be reused."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._fd: int | None = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # kernels before 5.3, sandboxes
                self._fd = os.pidfd_open(pid)

    def ends_within(self, timeout_s: float) -> bool:
        """Wait until the child has ended, at most `timeout_s`."""
        if self._fd is not None:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            return bool(poll.poll(math.ceil(timeout_s * 1000)))
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    return True
            except ChildProcessError:  # SIGCHLD is ignored here, the kernel buried it
                return True
            time.sleep(_POLL_S)
        return False

    def bury(self) -> None:
        """Kill the child if it still runs, and leave no zombie."""
        with contextlib.suppress(ProcessLookupError):
            if self._fd is None:
                os.kill(self._pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        if self._fd is not None:
            os.close(self._fd)
