"""Tasks that are cancelled during imports, and the state of their processes afterwards."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import ray

from dfn_ray.on_ray.uninterruptible_imports import _ImportGuard, guard_workers
from dfn_ray.testing.waiting import until


@ray.remote(num_cpus=1, max_retries=0)
def import_torch(began: Path) -> int:
    began.write_text(str(os.getpid()))
    import torch

    torch.zeros(1)
    return os.getpid()


@pytest.mark.ray
@pytest.mark.parametrize(
    "after_s", [*(pytest.param(after_s, marks=pytest.mark.slow) for after_s in (0.1, 0.8)), 0.4]
)
def test_a_task_cancelled_while_it_imports_leaves_a_process_that_can(local_ray, tmp_path, after_s):
    fresh = import_torch.options(runtime_env={"env_vars": {"FRESH": str(tmp_path)}})
    cancelled = fresh.remote(tmp_path / "first")
    until((tmp_path / "first").exists)
    time.sleep(after_s)
    ray.cancel(cancelled)
    ray.wait([cancelled])
    later = {ray.get(fresh.remote(tmp_path / name)) for name in ("second", "third")}
    assert later == {int((tmp_path / "first").read_text())}


SLOW = """
import time
until = time.monotonic() + 0.4
while time.monotonic() < until:
    time.sleep(0.01)
import {inner}
from pathlib import Path
files = Path(__file__).parent, __loader__.get_filename("{name}"), __spec__.loader.name
"""


@pytest.fixture
def guarded(tmp_path, monkeypatch):
    """A folder to import from, with the guard before all other finders."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [_ImportGuard(), *sys.meta_path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in ("slow_outer", "slow_inner", "broken_module"):
        sys.modules.pop(name, None)


@pytest.fixture
def own_sigint():
    """Python's default SIGINT handler: Ray Train leaves another one in a process that it used."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("own_sigint")
def test_an_interrupt_during_an_import_is_ignored_and_one_after_it_is_not(guarded):
    (guarded / "slow_outer.py").write_text(SLOW.format(name="slow_outer", inner="slow_inner"))
    (guarded / "slow_inner.py").write_text(SLOW.format(name="slow_inner", inner="json"))
    before = signal.getsignal(signal.SIGINT)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    module = importlib.import_module("slow_outer")
    assert module.files == (guarded, str(guarded / "slow_outer.py"), "slow_outer")
    assert sys.modules["slow_inner"].files[0] == guarded
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_import_that_fails_fails_and_the_next_is_guarded_again(guarded):
    (guarded / "broken_module.py").write_text("raise ValueError('broken')")
    with pytest.raises(ValueError, match="broken"):
        importlib.import_module("broken_module")
    assert not sys.meta_path[0].is_importing
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_module")


def test_only_workers_are_guarded_and_they_once(monkeypatch):
    before = list(sys.meta_path)
    monkeypatch.setattr(sys, "meta_path", list(before))
    guard_workers()
    assert sys.meta_path == before
    monkeypatch.setattr(sys, "argv", ["/somewhere/default_worker.py"])
    guard_workers()
    guard_workers()
    assert sys.meta_path[1:] == before
