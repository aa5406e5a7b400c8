"""The chunks of a shard from the reader of its format; exceptions of readers propagate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import IO, cast

from dfn_ray.config import Pool
from dfn_ray.pool.chunking import OpenChunk, RowSelection, unreadable_chunk
from dfn_ray.pool.folder import folder_chunks
from dfn_ray.pool.parquet.parquet_shard import parquet_chunks
from dfn_ray.pool.shard import Shard, ShardDamageError
from dfn_ray.pool.shard_file import ShardFile, open_shard, require_unchanged
from dfn_ray.pool.sniff import Format, sniff
from dfn_ray.pool.tars.tape import GzipTape, Tape
from dfn_ray.pool.tars.webdataset import tar_chunks
from dfn_ray.schema import ShardFault


def open_chunks(shard: Shard, pool: Pool, selection: RowSelection) -> Iterator[OpenChunk]:
    """The chunks of a shard of any format; damage becomes the fault of the last one.

    `bytes_read` of all chunks adds up to the size of the shard. Raises StorageError if the store
    fails, ShardChangedError if the shard differs from its listing, and whatever a reader raises on
    content that it does not expect.
    """
    form = folder_chunks if pool.format == "folder" else _of_file
    try:
        yield from form(shard, pool, selection)
    except ShardDamageError as damage:  # before any chunk: `_of_file` handles damage of content
        yield unreadable_chunk(damage, shard.size_bytes)


def chunks_from(shard: Shard, pool: Pool, first_row: int, at: int) -> Iterator[OpenChunk]:
    """The chunks of a tar from byte `at` on, where a chunk begins. May raise ShardDamageError."""
    with open_shard(shard, in_order=True) as file:
        yield from tar_chunks(Tape(_plain(file)), pool, RowSelection(), first_row=first_row, at=at)


def detect_format(shard: Shard, pool: Pool) -> Format:
    """The format of a shard. Raises ShardDamageError if it has none or is missing."""
    if pool.format == "folder":
        return Format.FOLDER
    with open_shard(shard, in_order=False) as file:
        return sniff(_plain(file), pool.format)


def _of_file(shard: Shard, pool: Pool, selection: RowSelection) -> Iterator[OpenChunk]:
    given = 0
    with open_shard(shard, in_order=not _looks_like_parquet(shard, pool)) as file:
        sized = replace(shard, size_bytes=file.size_bytes)
        for chunk in _by_format(file, sized, pool, selection):
            # The header of a truncated member states more bytes than the file has.
            chunk.bytes_read = min(chunk.bytes_read, file.size_bytes - given)
            if chunk.last:
                file.require_same_size()
                if chunk.fault is not None:
                    require_unchanged(shard)
                chunk.bytes_read = file.size_bytes - given
                if chunk.fault is None and not chunk.drafts:
                    chunk.fault, chunk.detail = ShardFault.EMPTY, "it contains no sample"
            if file.error is not None:
                return  # `open_shard` raises it; nothing read after it is content of the file
            given += chunk.bytes_read
            yield chunk


def _by_format(
    file: ShardFile, shard: Shard, pool: Pool, selection: RowSelection
) -> Iterator[OpenChunk]:
    try:
        form = sniff(_plain(file), pool.format)
    except ShardDamageError as damage:
        yield unreadable_chunk(damage, shard.size_bytes)
        return
    if form is Format.TAR:
        yield from tar_chunks(Tape(_plain(file)), pool, selection)
    elif form is Format.TAR_GZIP:
        yield from tar_chunks(GzipTape(_plain(file)), pool, selection)
    elif _looks_like_parquet(shard, pool):
        yield from parquet_chunks(_plain(file), shard, pool, selection)
    else:
        with open_shard(shard, in_order=False) as again:
            for chunk in parquet_chunks(_plain(again), shard, pool, selection):
                if again.error is not None:
                    return
                yield chunk


def _looks_like_parquet(shard: Shard, pool: Pool) -> bool:
    """A first guess that decides only how the file is opened: Parquet at random, tars in order."""
    return pool.format == "parquet" or shard.name.lower().endswith(".parquet")


def _plain(file: ShardFile) -> IO[bytes]:
    # A ShardFile implements what readers call: read, seek, tell, closed and close.
    return cast("IO[bytes]", file)
