"""Fixtures of the pool's tests, for reading shards whose files are hostile."""

from tests.pool.conftest import put, read

__all__ = ["put", "read"]
