"""Forked processes that make and check inputs, with limits of time and memory; may die."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pyarrow as pa

import dfn_ray
from tests.fuzz.case import PromiseError, Target, rng_of

MAX_CPU_S = 5.0
"""For one input, with its child processes. In CPU time, so that a busy machine changes nothing."""
_MAX_GROWTH_BYTES = 320 * 2**20
"""Beyond the memory of the worker before the check of an input of at most some MiB; an image has at
most 16 megapixels."""
_MAX_KEPT_BYTES = 256 * 2**20
"""Memory that a worker may hold beyond that after its first inputs."""
_WARM_INPUTS = 60
_ADDRESS_BYTES = 3 * 2**30
"""Memory that a worker may map beyond that at its fork."""
_INPUTS_OF_WORKER = 2000
_PRODUCT = Path(dfn_ray.__file__).parent
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The inputs, and the folder for those that fail."""

    seed: int
    out: Path
    target_of: Callable[[int], Target]
    """The kind of an input by its index."""
    hangs_s: float = 120.0
    """Wall-clock limit: an input that sleeps or runs longer is killed. Far beyond MAX_CPU_S, for
    busy machines."""


@dataclass(kw_only=True)
class Result:
    """The result of one input."""

    index: int
    target: str
    valid: bool = True
    note: str = ""
    cpu_s: float = 0.0
    growth_bytes: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failure: str | None = None
    """The kind of failure."""
    detail: str = ""


def results(plan: Plan, indexes: Sequence[int], workers: int) -> Iterator[Result]:
    """The result of each input as it ends; failed inputs are written below `plan.out`."""
    pending = list(reversed(indexes))
    pool = [_Worker(plan) for _ in range(min(workers, len(indexes)))]
    for worker in pool:
        worker.give(pending.pop())
    try:
        while any(worker.index is not None for worker in pool):
            wait([worker.end for worker in pool if worker.index is not None], timeout=1)
            for place, worker in enumerate(pool):
                result = worker.result()
                if result is None:
                    continue
                yield result
                if worker.is_spent:
                    worker.stop()
                    pool[place] = _Worker(plan)
                if pending:
                    pool[place].give(pending.pop())
    finally:
        for worker in pool:
            worker.stop()


class _Worker:
    """A forked process that receives one input at a time."""

    def __init__(self, plan: Plan) -> None:
        self.end, other = _FORK.Pipe()
        self._plan = plan
        # Its own, so that what it leaves there when it is killed goes with it.
        self._temporary = tempfile.mkdtemp(prefix="fuzz-")
        self._process = _FORK.Process(
            target=_work, args=(other, plan, self._temporary), daemon=True
        )
        self._process.start()
        other.close()
        self.index: int | None = None
        self._since = 0.0
        self._given = 0
        self._dead = False

    @property
    def is_spent(self) -> bool:
        """True once it died, or after so many inputs that it should be replaced."""
        return self._dead or self._given >= _INPUTS_OF_WORKER

    def give(self, index: int) -> None:
        """Sends an input."""
        self.index, self._since = index, time.monotonic()
        self._given += 1
        self.end.send(index)

    def result(self) -> Result | None:
        """The result of its input; None while there is none."""
        if self.index is None:
            return None
        try:
            if self.end.poll():
                self.index, result = None, self.end.recv()
                return result
        except (EOFError, ConnectionResetError):
            self._process.join(10)
            code = self._process.exitcode or 0
            why = signal.Signals(-code).name if code < 0 else f"exit {code}"
            return self._lost(f"died: {why}")
        if time.monotonic() - self._since > self._plan.hangs_s:
            return self._lost(f"hangs: no result after {self._plan.hangs_s:.0f} s")
        return None

    def _lost(self, failure: str) -> Result:
        assert self.index is not None
        index, self.index, self._dead = self.index, None, True
        self._process.kill()
        self._process.join()
        writer = _FORK.Process(
            target=_write_lost, args=(self._plan, index, failure, self._temporary)
        )
        writer.start()
        writer.join(self._plan.hangs_s)
        writer.kill()
        writer.join()
        self.stop()
        return Result(index=index, target=self._plan.target_of(index).name, failure=failure)

    def stop(self) -> None:
        """Ends the process and removes its temporary files."""
        self.end.close()
        self._process.kill()
        self._process.join()
        shutil.rmtree(self._temporary, ignore_errors=True)


def _use_temporary(folder: str) -> None:
    """Sets the folder for temporary files of this process and those it starts."""
    tempfile.tempdir = os.environ["TMPDIR"] = folder


def _write_lost(plan: Plan, index: int, failure: str, temporary: str) -> None:
    _use_temporary(temporary)
    write_input(plan, index, failure)


def _work(end: Connection, plan: Plan, temporary: str) -> None:
    _use_temporary(temporary)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit = _status("VmSize") + _ADDRESS_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warm = None
    gc.freeze()  # what was imported stays: without it `_held_bytes` took nine tenths of the time
    for count in range(_INPUTS_OF_WORKER):
        try:
            index = end.recv()
        except EOFError:
            return
        result = checked(plan, index)
        if count >= _WARM_INPUTS:
            held = _held_bytes(warm)
            warm = warm or held
            if held - warm > _MAX_KEPT_BYTES and result.failure is None:
                result.failure = f"memory: a worker keeps {(held - warm) >> 20} MiB"
        end.send(result)


def _held_bytes(warm: int | None) -> int:
    """Memory that this process holds.

    If it seems too much, the reserves of its allocators are released first.
    """
    gc.collect()
    held = _status("VmRSS")
    if warm is not None and held - warm > _MAX_KEPT_BYTES:
        pa.default_memory_pool().release_unused()
        ctypes.CDLL(None).malloc_trim(0)
        held = _status("VmRSS")
    return held


def checked(plan: Plan, index: int) -> Result:
    """The result of one input, checked in this process."""
    target = plan.target_of(index)
    result = Result(index=index, target=target.name)
    try:
        case = target.make(rng_of(plan.seed, index))
    except Exception:  # noqa: BLE001  recorded: the fuzzer itself is wrong
        result.failure, result.detail = "the generator failed", traceback.format_exc()
        return result
    result.valid, result.note = case.valid, case.note
    folder = Path(tempfile.mkdtemp(prefix="input-"))
    before = _begin_peak()
    started = _cpu_s()
    try:
        result.outcomes = case.check(folder)
    except PromiseError as error:
        result.failure, result.detail = str(error).partition(":")[0], traceback.format_exc()
    except BaseException as error:  # noqa: BLE001  recorded: this escaped the product
        result.failure, result.detail = _escaped(error), traceback.format_exc()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result.cpu_s = _cpu_s() - started
    result.growth_bytes = max(0, _status("VmHWM") - before)
    if result.failure is None and result.cpu_s > MAX_CPU_S:
        result.failure = "slow"
        result.detail = f"{result.cpu_s:.1f} s of CPU time, the limit is {MAX_CPU_S} s"
    if result.failure is None and result.growth_bytes > _MAX_GROWTH_BYTES:
        result.failure = "memory: one input takes too much"
        result.detail = f"{result.growth_bytes >> 20} MiB, the limit is {_MAX_GROWTH_BYTES >> 20}"
    if result.failure is not None:
        write_input(plan, index, f"{result.failure}\n\n{result.detail}")
    return result


def write_input(plan: Plan, index: int, failure: str) -> None:
    """Writes the files of an input below `plan.out`, with the command that repeats it."""
    target = plan.target_of(index)
    folder = plan.out / f"{target.name}-{plan.seed}-{index}"
    folder.mkdir(parents=True, exist_ok=True)
    command = f"python -m tests.fuzz --seed {plan.seed} --only {index}"
    (folder / "failure.txt").write_text(f"{command}\n\n{failure}\n", errors="backslashreplace")
    case = target.make(rng_of(plan.seed, index))
    (folder / "input.txt").write_text(case.note + "\n", errors="backslashreplace")
    for name, content in case.files.items():
        (folder / name.replace("/", "_")[:100]).write_bytes(content)


def _escaped(error: BaseException) -> str:
    """The kind of an escaped exception: its name and its place in the product."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_PRODUCT)]
    if not own:
        return f"{type(error).__name__} outside the product"
    place = Path(own[-1].filename).relative_to(_PRODUCT)
    return f"{type(error).__name__} escaped {place}, {own[-1].name}"


def _begin_peak() -> int:
    """Resets the kernel's record of this process's peak; returns the bytes held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    """A size of this process from /proc, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def _cpu_s() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
