"""The footer of a Parquet file, held against the file: what it states about row groups decides what is read and how long."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow.parquet as pq

from dfn_ray.pool.parquet.pages import Leaf
from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.schema import ShardFault

_MAGIC_BYTES = 4  # PAR1 before the first page
_TAIL_BYTES = 8  # length of the footer and PAR1
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}


def checked_leaves(
    metadata: pq.FileMetaData, names: Sequence[str], size_bytes: int
) -> list[list[Leaf]]:
    """The primitive columns of the named columns, by row group, in the order of the file.

    Raises ShardDamageError when the footer cannot be true: negative counts, pages outside the file or shared by columns,
    another number of values than of rows.
    """
    wanted = _selected_leaves(metadata.schema, names)
    leaves = [
        _leaves(metadata.row_group(n), n, metadata.schema, wanted)
        for n in range(metadata.num_row_groups)
    ]
    rows = sum(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
    if rows != metadata.num_rows:
        raise _impossible_footer(f"{metadata.num_rows:,} rows, and {rows:,} in its row groups")
    end, last = _MAGIC_BYTES, "the file"
    for leaf in sorted((leaf for group in leaves for leaf in group), key=lambda leaf: leaf.start):
        if leaf.start < end:
            raise _impossible_footer(
                f"pages of column {leaf.column!r} at byte {leaf.start:,}, within {last}"
            )
        end, last = leaf.end, f"column {leaf.column!r}"
    if end > size_bytes - _TAIL_BYTES:
        raise _impossible_footer(f"pages up to byte {end:,} in a file of {size_bytes:,}")
    return leaves


def columns_at(
    schema: pq.ParquetSchema, names: Sequence[str], places: Collection[int]
) -> frozenset[str]:
    """Those of the named columns that primitive columns at these places are part of."""
    if not places:
        return frozenset()
    return frozenset(name for place, name in _selected_leaves(schema, names) if place in places)


def _selected_leaves(schema: pq.ParquetSchema, names: Sequence[str]) -> list[tuple[int, str]]:
    """Places of primitive columns with the column that each is part of, as Arrow finds them by name.

    Where a path begins with several names, it is part of the first of them. Names and paths are gone through once, sorted
    so that whatever begins with a name follows it: a footer may list tens of thousands of each.
    """
    ranked = [(f"{name}.", -1, rank) for rank, name in enumerate(names)]
    paths = [(f"{schema.column(place).path}.", place, 0) for place in range(len(schema))]
    found: list[tuple[int, str]] = []
    around: list[
        tuple[str, int]
    ] = []  # the names that the current one begins with, and the first rank up to each
    for text, place, rank in sorted(ranked + paths):
        while around and not text.startswith(around[-1][0]):
            around.pop()
        if place < 0:
            around.append((text, min(rank, around[-1][1]) if around else rank))
        elif around:
            found.append((place, names[around[-1][1]]))
    return sorted(found)


def _leaves(
    group: pq.RowGroupMetaData, number: int, schema: pq.ParquetSchema, wanted: list[tuple[int, str]]
) -> list[Leaf]:
    if group.num_rows < 0:
        raise _impossible_footer(f"{group.num_rows:,} rows in row group {number}")
    if group.num_rows == 0:
        return []  # nothing of it is read; pyarrow gives it an offset of 0
    leaves = []
    for place, name in wanted:
        chunk, kind = group.column(place), schema.column(place)
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
            start = (
                chunk.dictionary_page_offset
            )  # as Arrow has it: 0 and later ones are known faults of writers
        leaf = Leaf(
            column=name,
            start=start,
            size=chunk.total_compressed_size,
            values=chunk.num_values,
            repeated=kind.max_repetition_level > 0,
            width=_WIDTHS.get(kind.physical_type)
            or (kind.length if kind.physical_type == "FIXED_LEN_BYTE_ARRAY" else None),
            codec=chunk.compression,
            ahead=chunk.data_page_offset - start,
            ratio=chunk.total_uncompressed_size / max(chunk.total_compressed_size, 1),
        )
        if leaf.size < 0 or (
            leaf.values < group.num_rows if leaf.repeated else leaf.values != group.num_rows
        ):
            raise _impossible_footer(
                f"{leaf.values:,} values in {leaf.size:,} bytes of column {name!r} for "
                f"{group.num_rows:,} rows of row group {number}"
            )
        leaves.append(leaf)
    return leaves


def _impossible_footer(what: str) -> ShardDamageError:
    return ShardDamageError(ShardFault.UNREADABLE, f"the footer cannot be true: it states {what}")
