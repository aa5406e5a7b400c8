"""A pool, a tiny network and a stand-in for the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from dfn_ray.testing.http_server import serve_http


@dataclass
class Hub:
    """A stand-in hub: repositories by id, each with its files; `status`, if set, for all."""

    endpoint: str
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    status: int | None = None
    silence_s: float = 0.0
    stated: dict[str, int] = field(default_factory=dict)
    """Sizes that are stated in place of the true ones."""
    failing: set[str] = field(default_factory=set)
    """Names of files that are answered with HTTP 503."""
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, bytes] | None:
        self.asked.append(path)
        time.sleep(self.silence_s)
        if self.status is not None:
            return self.status, b"{}"
        for name, files in self.repositories.items():
            if path == f"/api/models/{name}?blobs=true":
                siblings = [
                    {"rfilename": file, "size": self.stated.get(file, len(data))}
                    for file, data in files.items()
                ]
                return 200, json.dumps({"id": name, "siblings": siblings}).encode()
            for file, data in files.items():
                if path == f"/{name}/resolve/main/{file}":
                    return (503, b"") if file in self.failing else (200, data)
        return 404, b"{}"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The hub that this process's client uses, with an empty cache."""
    from huggingface_hub import constants

    with serve_http({}) as server:
        there = Hub(server.endpoint)
        server.answers = there.answer
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield there


def run_alone(*words: str, cwd, environment: Sequence[tuple[str, str]] = ()) -> tuple[int, str]:
    """Exit code and output of a command in its own process, which must not load Ray or torch."""
    code = (
        "import sys; from dfn_ray.cli import run; "
        f"code = run({list(words)!r}); "
        "print('loaded', {'ray', 'torch', 'open_clip'} & set(sys.modules)); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **dict(environment)},
    )
    assert "loaded set()" in done.stdout, done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr
