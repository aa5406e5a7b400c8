"""A fixture that points the driver, but no worker, at another S3 server."""

from __future__ import annotations

import pytest

from dfn_ray.storage import s3


@pytest.fixture
def seen_by_driver(monkeypatch):
    """Makes this process, but no worker, use an S3 server: `seen_by_driver(server)`."""

    def use(server) -> None:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        forget()

    yield use
    monkeypatch.undo()
    forget()


def forget() -> None:
    """Makes this process read S3's credentials and endpoint from its environment again."""
    s3._s3_of.cache_clear()
    s3.S3.clear_instance_cache()
