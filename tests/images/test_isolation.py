"""Work that kills or hangs its process costs one item each."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch  # noqa: F401  loaded on purpose: the caller is a process with torch's threads

from dfn_ray.images.isolation import run_isolated, shared_array
from dfn_ray.schema import Reason


def marked(count):
    """Shared marks of finished items, and the work that sets them."""
    done = shared_array((count,), np.int64)

    def mark(index):
        done[index] = index + 1

    return done, mark


def test_every_item_is_done_once_in_order_in_another_process():
    seen = shared_array((5,), np.int64)
    turn = shared_array((1,), np.int64)

    def work(index):
        seen[turn[0]] = index
        turn[0] += 1
        assert os.getpid() != parent

    parent = os.getpid()
    assert run_isolated(work, 5, timeout_s=30) == {}
    assert seen.tolist() == [0, 1, 2, 3, 4]


def test_nothing_to_do_forks_nothing(monkeypatch):
    monkeypatch.setattr(os, "fork", None)
    assert run_isolated(lambda _: None, 0, timeout_s=1) == {}


@pytest.mark.parametrize(
    "die",
    [
        lambda: os.kill(os.getpid(), signal.SIGSEGV),
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        lambda: os._exit(3),
        lambda: os._exit(0),
        lambda: ctypes.string_at(0),
        lambda: 1 / 0,
    ],
    ids=["segfault", "kill", "exit 3", "exit 0", "null pointer", "exception"],
)
def test_an_item_that_ends_its_process_is_blamed_and_no_other(die, capfd):
    done, mark = marked(7)

    def work(index):
        if index in (0, 3, 4, 6):
            die()
        mark(index)

    faults = run_isolated(work, 7, timeout_s=30)
    assert faults == dict.fromkeys((0, 3, 4, 6), Reason.DECODE_CRASHED)
    assert done.tolist() == [0, 2, 3, 0, 0, 6, 0]


def test_an_item_that_hangs_is_killed_after_its_own_time_and_the_rest_goes_on():
    child = shared_array((20,), np.int64)

    def work(index):
        child[index] = os.getpid()
        time.sleep(60 if index == 15 else 0.05)  # 15 items take longer than one timeout

    started = time.monotonic()
    assert run_isolated(work, 20, timeout_s=0.5) == {15: Reason.DECODE_TIMEOUT}
    assert time.monotonic() - started < 10
    first, second, rest = child[:15], child[15:16], child[16:]
    assert [len(set(part.tolist())) for part in (first, second, rest)] == [1, 1, 1]
    assert len(set(child.tolist())) == 3


def test_an_item_that_fails_only_the_first_time_is_not_blamed():
    tries = shared_array((1,), np.int64)
    done, mark = marked(4)

    def work(index):
        if index == 2 and tries[0] == 0:
            tries[0] = 1
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
        mark(index)

    assert run_isolated(work, 4, timeout_s=30) == {}
    assert done.tolist() == [1, 2, 3, 4]


def test_it_works_beside_running_threads_and_from_several_of_them():
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            sum(range(1000))
            sys.stderr.flush()

    def crash_at_two(index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGSEGV)

    results = []
    busy = [threading.Thread(target=churn) for _ in range(4)]
    callers = [
        threading.Thread(target=lambda: results.append(run_isolated(crash_at_two, 5, timeout_s=20)))
        for _ in range(4)
    ]
    for thread in busy + callers:
        thread.start()
    for thread in callers:
        thread.join()
    stop.set()
    for thread in busy:
        thread.join()
    assert results == [{2: Reason.DECODE_CRASHED}] * 4


def test_no_process_and_no_descriptor_is_left_behind():
    pid = shared_array((2,), np.int64)

    def work(index):
        pid[index] = os.getpid()
        os._exit(1)

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        run_isolated(work, 2, timeout_s=30)
    assert len(os.listdir("/proc/self/fd")) == before
    for child in pid.tolist():
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)


def test_an_interrupted_caller_kills_its_child():
    pid = shared_array((1,), np.int64)

    def work(_):
        pid[0] = os.getpid()
        time.sleep(60)

    previous = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            run_isolated(work, 1, timeout_s=60)
    finally:
        signal.signal(signal.SIGALRM, previous)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid[0]), 0)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
def test_the_child_dies_with_its_parent():
    program = (
        "import os, time\n"
        "from dfn_ray.images.isolation import run_isolated\n"
        "def work(_):\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
        "run_isolated(work, 1, timeout_s=60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.02)
    assert not _runs(child)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"  # nobody may reap it here
    except FileNotFoundError:
        return False


def test_it_works_where_the_system_has_no_pidfd(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    done, mark = marked(4)

    def work(index):
        if index == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if index == 2:
            time.sleep(60)
        mark(index)

    faults = run_isolated(work, 4, timeout_s=0.5)
    assert faults == {1: Reason.DECODE_CRASHED, 2: Reason.DECODE_TIMEOUT}
    assert done.tolist() == [1, 0, 0, 4]
