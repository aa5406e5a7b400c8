"""A Ray head for tests that submit jobs: `ray start --head` with its own ports and folder."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

import dfn_ray

START_S = 60.0
"""Time limit for the head's dashboard to answer."""
STOP_S = 10.0
"""Time after which remaining processes of a head are killed."""


@dataclass(frozen=True)
class Head:
    """A running head of one node. Only holders of its token may submit to it."""

    address: str
    """URL of its dashboard, where jobs are submitted."""
    token: str
    process: psutil.Process

    @property
    def environment(self) -> dict[str, str]:
        """The variables that authorise `ray` and `dfn-ray submit`."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}


@contextmanager
def start_head(*, num_cpus: int = 4, num_gpus: int = 0) -> Iterator[Head]:
    """A head for the duration of the context, with so many logical CPUs and GPUs.

    Stopped by the ids of its own processes: `ray stop` would end every Ray of this machine. Raises
    RuntimeError, with its output, if it does not start.
    """
    # Ray's sockets must have short paths.
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    port, dashboard, agent, client = _free_ports(4)
    token = secrets.token_hex(32)
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
        "--node-ip-address=127.0.0.1", f"--port={port}", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}",
        f"--temp-dir={folder}", f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}",
        "--object-store-memory=200000000", "--disable-usage-stats",
    ]  # fmt: skip
    # Jobs inherit the head's environment: it includes dfn_ray and hides other Rays.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    inherited["PYTHONPATH"] = str(Path(dfn_ray.__file__).parents[1])
    log = folder / "head.log"
    with open(log, "wb") as file:
        started = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            cwd=folder,
            env=inherited | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
        )
    head = Head(f"http://127.0.0.1:{dashboard}", token, psutil.Process(started.pid))
    try:
        _wait(head, started, log)
        yield head
    finally:
        _stop(started)
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _wait(head: Head, started: subprocess.Popen[bytes], log: Path) -> None:
    request = urllib.request.Request(
        f"{head.address}/api/jobs/", headers={"Authorization": f"Bearer {head.token}"}
    )
    deadline = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except (urllib.error.URLError, OSError) as error:
            if started.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no Ray head ({error}):\n{log.read_text()}") from error
            time.sleep(0.1)


def _stop(started: subprocess.Popen[bytes]) -> None:
    """Ends the head and all its descendants."""
    head = psutil.Process(started.pid)
    processes = [head, *head.children(recursive=True)]
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                end(process)
        deadline = time.monotonic() + STOP_S
        while any(map(_lives, processes)) and time.monotonic() < deadline:
            time.sleep(0.1)
    started.wait()


def _lives(process: psutil.Process) -> bool:
    try:
        # A process that outlives its parent may stay a zombie if nobody reaps it, as in containers.
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
