"""The Parquet files of a part: scores, and rows with their bytes for subset and borderline."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from dfn_ray.on_ray.cells import Cell
from dfn_ray.run import PartHeader, is_near_footer, parquet_bytes, part_footer
from dfn_ray.schema import BYTE_COLUMNS, Chunk

ROW_GROUP_BYTES = 32 * 2**20
"""Size of row groups of image Parquet. A reader holds one: Ray's peaked at 884 MB for 200 MB."""
MAX_ROW_GROUP_ROWS = 65_536
COPIES = "copies"
"""Number of times that a uid list contains the sample, int64; a column of runs of uid lists
only."""
NOT_IN_SUBSET = ("status", "reason", COPIES)
"""Columns of the scores that the subset omits: they are the same for all kept samples."""
_SHARD = pa.dictionary(pa.int32(), pa.string())


def with_shard(cell: Cell) -> pa.Table:
    """The cell's samples with their shard as second column."""
    count = cell.samples.num_rows
    shard = pa.DictionaryArray.from_arrays(
        pa.array([0] * count, pa.int32()), pa.array([cell.chunk.shard])
    )
    return cell.samples.add_column(1, pa.field("shard", _SHARD), shard)


def subset_rows(samples: pa.Table) -> pa.Table:
    """The rows without the columns that the subset omits."""
    return samples.drop_columns([c for c in NOT_IN_SUBSET if c in samples.column_names])


def image_parquet(rows: pa.Table, name: str = "") -> bytes:
    """The rows as a Parquet file with row groups of about ROW_GROUP_BYTES.

    Images are stored unchanged.
    `name` is the name of the file; empty for a file named by its content.
    """
    row_bytes = max(1, rows.nbytes // max(1, rows.num_rows))
    group_rows = min(MAX_ROW_GROUP_ROWS, max(1, ROW_GROUP_BYTES // row_bytes))
    names = rows.column_names
    return parquet_bytes(
        rows,
        name,
        row_group_size=group_rows,
        # Images are already compressed; statistics on bytes and captions would only bloat the
        # footer.
        compression={
            **{name: "NONE" if name == "image" else "ZSTD" for name in names},
            "text.list.element": "ZSTD",  # of several captions
        },
        use_dictionary=["shard"],
        write_statistics=[name for name in names if name not in BYTE_COLUMNS],
    )


def scores_parquet(samples: pa.Table, chunks: Sequence[Chunk], header: PartHeader) -> bytes:
    """The scores of a part as a Parquet file whose footer commits the chunks."""
    names = [name for name in samples.column_names if name not in BYTE_COLUMNS]
    rows = samples.select(sorted(names, key=is_near_footer))
    rows = rows.replace_schema_metadata(part_footer(chunks, header))
    return parquet_bytes(rows, compression="ZSTD", use_dictionary=["shard", "status", "reason"])
