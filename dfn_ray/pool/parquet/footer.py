"""Checks of a Parquet footer against its file.

The statements of a footer about row groups determine how much is read and for how long.
"""

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
    """The primitive columns of the named columns, by row group, in file order.

    Raises ShardDamageError if the footer is impossible: negative counts, pages outside the file or
    shared by columns, or a number of values other than that of rows.
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
    """Those of the named columns that contain the primitive columns at these places."""
    if not places:
        return frozenset()
    return frozenset(name for place, name in _selected_leaves(schema, names) if place in places)


def _selected_leaves(schema: pq.ParquetSchema, names: Sequence[str]) -> list[tuple[int, str]]:
    """Places of primitive columns, each with the name of its column, as Arrow matches names.

    A path that begins with several names belongs to the first of them. Names and paths are
    traversed once, sorted so that everything that begins with a name follows it: a footer may list
    tens of thousands of each.
    """
    ranked = [(f"{name}.", -1, rank) for rank, name in enumerate(names)]
    paths = [(f"{schema.column(place).path}.", place, 0) for place in range(len(schema))]
    found: list[tuple[int, str]] = []
    around: list[
        tuple[str, int]
    ] = []  # the names that the current one begins with, and the lowest rank up to each
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
        return []  # it is not read; pyarrow writes an offset of 0 for it
    leaves = []
    for place, name in wanted:
        chunk, kind = group.column(place), schema.column(place)
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
            start = (
                chunk.dictionary_page_offset
            )  # as in Arrow: 0 and later offsets are known faults of writers
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
    return ShardDamageError(ShardFault.UNREADABLE, f"the footer is impossible: it states {what}")
