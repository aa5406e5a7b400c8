"""A way to look at another S3 server than the workers do."""

from __future__ import annotations

import pytest
from s3fs import S3FileSystem


@pytest.fixture
def seen_by_driver(monkeypatch):
    """Makes this process, but no worker, use an S3 server: `seen_by_driver(server)`."""

    def use(server) -> None:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        S3FileSystem.clear_instance_cache()

    yield use
    monkeypatch.undo()
    S3FileSystem.clear_instance_cache()
