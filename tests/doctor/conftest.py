"""A way to look at another S3 server than the workers do."""

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
    """Have this process ask its environment anew who and where S3 is."""
    s3._s3_of.cache_clear()
    s3.S3.clear_instance_cache()
