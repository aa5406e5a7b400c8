from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import fsspec
import pytest

from dfn_ray.config import Pool
from dfn_ray.pool import Shard, iter_chunks, read_chunk
from dfn_ray.schema import SAMPLE_SCHEMA, SEVERAL_CAPTIONS_SCHEMA, Chunk

MIB = 2**20


@dataclass(frozen=True)
class Readout:
    """Everything that reading a shard returned."""

    chunks: list[Chunk]
    rows: list[dict[str, Any]]

    @property
    def last(self) -> Chunk:
        return self.chunks[-1]

    @property
    def reasons(self) -> dict[str, str | None]:
        return {row["key"]: row["reason"] for row in self.rows}

    @property
    def boundaries(self) -> list[tuple[int, int]]:
        return [(chunk.first_row, chunk.rows) for chunk in self.chunks]

    def skipping(self, *first_rows: int) -> dict[str, Any]:
        """Arguments with which `read` skips these chunks, as a run does that has committed them."""
        end = self.last.first_row
        return {"skip": set(first_rows), "last": end if end in first_rows else None}


@pytest.fixture(scope="session")
def put():
    """Puts bytes into an in-memory store; returns the shard."""

    def put(data: bytes, name: str = "00000.tar") -> Shard:
        uri = f"memory://pool-{uuid.uuid4().hex}/{name}"
        fsspec.filesystem("memory").pipe_file(uri, data)
        return Shard(uri, name, len(data))

    return put


@pytest.fixture(scope="session")
def read(put):
    """Reads a shard (or its bytes) with settings of `[pool]`; checks properties of all shards."""

    def read(source: bytes | Shard, *, skip=(), last=None, **settings: Any) -> Readout:
        shard = source if isinstance(source, Shard) else put(source)
        pool = Pool(uri=(shard.uri,), **settings)
        chunks, rows = [], []
        for chunk, table in iter_chunks(shard, pool, skip=skip, last=last):
            several = SEVERAL_CAPTIONS_SCHEMA if pool.several_captions else SAMPLE_SCHEMA
            assert table.schema == several
            assert table.num_rows == chunk.rows
            assert table.column("row").to_pylist() == list(
                range(chunk.first_row, chunk.first_row + chunk.rows)
            )
            assert chunk.shard == shard.uri
            if chunk.rows and not skip:
                assert read_chunk(shard, pool, chunk).equals(table), "read by itself"
            chunks.append(chunk)
            rows += table.to_pylist()
        for row in rows:
            failed = row["reason"] is not None
            assert row["status"] == ("failed" if failed else None)
            assert (row["image"] is None) == failed
            assert (row["text"] is None) == failed
            assert len(row["uid"]) == 32
        if not skip:
            assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
            assert all(chunk.fault is None for chunk in chunks[:-1])
            assert all(chunk.rows > 0 for chunk in chunks[:-1])
        return Readout(chunks, rows)

    return read
