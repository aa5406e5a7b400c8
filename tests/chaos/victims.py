"""A Ray cluster for chaos tests: a driver that is restarted after each kill, and other victims."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

OWN_CLUSTER = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_worker_niceness": "0",
}
"""Environment variables that allow drivers, and nobody else, to connect."""
WAIT_FOR_VICTIM_S = 60.0
"""Time after which another kind of process is tried: a stage may have ended."""
WAITING_FRACTION = 0.3
"""Fraction of the kills that wait for a certain kind of process; the others take what runs now."""
PATIENCE_S = 600.0
"""Time after which a verb that has neither ended nor met a kill counts as hanging."""


@dataclass(frozen=True)
class Cluster:
    """A Ray head and its processes."""

    address: str
    head: psutil.Process

    def workers(self, title: str) -> list[psutil.Process]:
        """The processes that currently run a stage, by a part of their command."""
        found = []
        for process in self.head.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                command = " ".join(process.cmdline())
                if title in command:
                    found.append(process)
        return found

    def driver(self, verb: str, recipe: Path) -> subprocess.Popen[bytes]:
        """A new driver process of a verb over a recipe; its output goes to the recipe's .log."""
        environment = os.environ | OWN_CLUSTER | {"RAY_ADDRESS": self.address}
        with open(recipe.with_suffix(".log"), "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dfn_ray.cli", verb, str(recipe)],
                stdout=log,
                stderr=log,
                env=environment,
            )


@contextmanager
def own_cluster(folder: Path) -> Iterator[Cluster]:
    """Starts a separate Ray head; stops only its own processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Ray's sockets must have short paths.
    temp = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    command = [
        "ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=4",
        "--include-dashboard=false", f"--temp-dir={temp}", "--object-store-memory=500000000",
    ]  # fmt: skip
    with open(folder / "cluster.log", "wb") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | OWN_CLUSTER)
    try:
        deadline = time.monotonic() + 120
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert head.poll() is None, f"the cluster ended: {(folder / 'cluster.log').read_text()}"
            assert time.monotonic() < deadline, "the cluster did not start"
            time.sleep(0.2)
        time.sleep(5)
        yield Cluster(f"127.0.0.1:{port}", psutil.Process(head.pid))
    finally:
        for process in [*psutil.Process(head.pid).children(recursive=True), head]:
            done(process.kill)
        shutil.rmtree(temp, ignore_errors=True)


@dataclass
class Disturbed:
    """A verb over a recipe whose processes are killed repeatedly, and whose driver is restarted."""

    cluster: Cluster
    verb: str
    recipe: Path
    victims: Mapping[str, str]
    """Kind of victim -> part of the title of its worker process; the driver is always a victim."""
    rng: random.Random
    steps: Sequence[str]
    """Phases in each of which the driver must be killed."""
    step: Callable[[], str]
    """Returns the current phase of the driver."""
    killed_before: Mapping[str, int] = field(default_factory=dict)
    """Kills of earlier rounds: kinds with the fewest kills are next."""
    killed: Counter[str] = field(default_factory=Counter)

    def run(self, pause_s: Callable[[], float], most: int) -> Counter[str]:
        """Kills at most that many times, with a pause before each; returns the kills by kind."""
        driver = self._driver()
        met = time.monotonic()
        while driver.poll() is None:
            assert time.monotonic() - met < PATIENCE_S, f"{self.verb} hangs: {self._said()}"
            time.sleep(pause_s())
            if sum(self.killed.values()) >= most or driver.poll() is not None:
                continue
            if (kind := self._kill_one(driver)) is None:
                continue
            met = time.monotonic()
            self.killed[kind] += 1
            if kind.startswith("driver"):
                driver.wait()
                driver = self._driver()
        assert driver.returncode == 0, f"{self.verb} failed: {self._said()}"
        return self.killed

    def _driver(self) -> subprocess.Popen[bytes]:
        return self.cluster.driver(self.verb, self.recipe)

    def _kill_one(self, driver: subprocess.Popen[bytes]) -> str | None:
        """Kills a process, kinds with few kills first; returns its kind, None after a timeout."""
        kind = self._draw()
        waits = self.rng.random() < WAITING_FRACTION
        deadline = time.monotonic() + WAIT_FOR_VICTIM_S
        while time.monotonic() < deadline and driver.poll() is None:
            if kind in self.victims:
                found = self.cluster.workers(self.victims[kind])
                if found and done(self.rng.choice(found).kill):
                    return kind
            elif kind == f"driver, {self.step()}":
                return kind if done(driver.kill) else None
            if not waits:
                kind = self._draw()
            # A step may last a fraction of a second.
            time.sleep(0.1 if kind in self.victims else 0.01)
        return None

    def _draw(self) -> str:
        kinds = [*(f"driver, {step}" for step in self.steps), *self.victims]
        (kind,) = self.rng.choices(kinds, [1 / (1 + self._kills_of(kind)) for kind in kinds])
        return kind

    def _kills_of(self, kind: str) -> int:
        return self.killed_before.get(kind, 0) + self.killed[kind]

    def _said(self) -> str:
        return self.recipe.with_suffix(".log").read_text()[-4000:]


def done(kill: Callable[[], None]) -> bool:
    """Kills a process; False if it no longer exists."""
    try:
        kill()
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    return True


def end_by_signals() -> None:
    """Makes SIGTERM unwind the stack, so that no process is left."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
