"""Samples of a Parquet file: one per row, read in small batches.

Supports plain columns, img2dataset's Parquet output (image column named after its encoding) and
Hugging Face's image column (a struct of bytes and path).

Damage costs as little as Arrow allows: a value that Python cannot represent costs itself, a page
its row group, a footer the file. Rows of a row group that were read before its broken page are
kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

import pyarrow.parquet as pq

from dfn_ray.config import Pool
from dfn_ray.pool.chunking import OpenChunk, RowSelection
from dfn_ray.pool.parquet.columns import columns_of
from dfn_ray.pool.parquet.footer import checked_leaves, columns_at
from dfn_ray.pool.parquet.pages import PAGE_BYTES, Leaf
from dfn_ray.pool.parquet.row_groups import OpenParquet, RowGroup
from dfn_ray.pool.parquet.watched import BROKEN, WatchedFile
from dfn_ray.pool.samples import Draft
from dfn_ray.pool.shard import Shard, ShardDamageError
from dfn_ray.schema import ShardFault
from dfn_ray.untrusted.parquet_files import EncryptedParquetError, read_footer

_BUFFER_BYTES = 4 * 2**20
"""Read per column and request, so that memory is bounded by this and a page; Arrow's default
(`pre_buffer`) would load all columns of a row group at once."""


def parquet_chunks(
    file: IO[bytes], shard: Shard, pool: Pool, selection: RowSelection
) -> Iterator[OpenChunk]:
    """The chunks of a Parquet file, in order; the last one carries the fault of the shard, if any.

    If chunks are skipped, all rows are decoded nevertheless: chunks end by size, and Parquet
    records no sizes per row. If single rows are selected, chunks contain only those, and row groups
    without any are not read.
    """
    chunk = OpenChunk(0)
    try:
        source = _Source(file, shard, pool)
        bytes_per_row = shard.size_bytes / max(source.rows, 1)
        for draft in source.drafts(selection.rows):
            if chunk.is_full(pool):
                chunk.bytes_read = int(len(chunk.drafts) * bytes_per_row)
                yield chunk
                chunk = OpenChunk(draft.row)
            chunk.add(draft)
    except ShardDamageError as damage:
        chunk.end(damage)
    chunk.last = True
    yield chunk


class _Source:
    """An open Parquet file; anything broken in it raises ShardDamageError, or fails rows."""

    def __init__(self, file: IO[bytes], shard: Shard, pool: Pool) -> None:
        watched = WatchedFile(file, shard.uri)
        try:
            footer = read_footer(file)
            parquet = pq.ParquetFile(
                watched,
                metadata=footer.metadata,
                buffer_size=_BUFFER_BYTES,
                pre_buffer=False,
                page_checksum_verification=pool.verify_page_checksums,
            )
            schema = parquet.schema_arrow
        except EncryptedParquetError as error:
            raise ShardDamageError(ShardFault.UNREADABLE, str(error)) from error
        except BROKEN as error:
            raise watched.damage(error, "not Parquet") from error
        columns = columns_of(schema, pool)
        columns = columns.without(
            columns_at(parquet.metadata.schema, columns.names, footer.encrypted)
        )
        leaves = checked_leaves(parquet.metadata, columns.names, shard.size_bytes)
        self.rows = parquet.metadata.num_rows
        self._opened = OpenParquet(
            parquet=parquet,
            file=watched,
            columns=columns,
            max_image_page=max(PAGE_BYTES, pool.max_image_bytes),
            max_caption_bytes=pool.max_caption_bytes,
        )
        self._groups = [
            RowGroup(
                self._opened,
                number,
                parquet.metadata.row_group(number).num_rows,
                _by_column(of_group),
            )
            for number, of_group in enumerate(leaves)
        ]

    def drafts(self, rows: frozenset[int] | None = None) -> Iterator[Draft]:
        """The samples of the file, or only those at `rows`, in order."""
        first = 0
        for group in self._groups:
            end = first + group.rows
            if rows is None or any(first <= row < end for row in rows):
                yield from group.drafts(first, rows)
            first = end


def _by_column(leaves: Sequence[Leaf]) -> dict[str, list[Leaf]]:
    found: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        found.setdefault(leaf.column, []).append(leaf)
    return found
