"""Shards of image-text pairs as a stream of chunks. Imports neither Ray nor torch.

    shards = list_shards(pool)                         # one listing per folder, no shard opened
    for chunk, table in iter_chunks(shards[0], pool):  # one chunk in memory
        ...                                            # table: SAMPLE_SCHEMA, good and bad samples

A bad sample is a row with a reason, a bad shard a fault on its last chunk; only storage failures
raise.

    listing/          the shards of a pool
    reading.py        chunks and rows of a shard: all that leaves a reader
      open_chunks.py  the chunks of a shard from the reader of its format
      sniff.py        the format of a shard, by its first bytes
      tars/           tars, as WebDataset
      parquet/        Parquet files
      folder.py       class folders
    chunking.py       where chunks are cut, and a chunk as a table
    samples.py        a sample: its parts, checked, as a row
      captions.py     its caption, or the reason why there is none
      members.py      the sample that a tar member belongs to, and its role
      long_names.py   names that are too long to be kept whole
      text.py         visible text
    shard.py          a shard, and the exception for damage to it
    shard_file.py     its opened file: failures of the store apart from damage
    examination.py    a second read in a fresh process, where content crashes readers
    inspect.py        dfn-ray inspect: a quick look at a pool
    error_limits.py   limits on failed and rejected samples and on bad shards
"""

from dfn_ray.pool.inspect import PoolReport, inspect_pool
from dfn_ray.pool.listing.list_pool import list_pool, list_shards
from dfn_ray.pool.listing.listing_table import listed_versions, listing_table, shards_of_listing
from dfn_ray.pool.listing.outputs import RUN_FILES, require_outside_pool
from dfn_ray.pool.listing.remarks import Listing, listing_notes
from dfn_ray.pool.reading import iter_chunks, read_chunk, read_rows
from dfn_ray.pool.shard import Shard
from dfn_ray.uids.derived import derive_uid

__all__ = [
    "RUN_FILES",
    "Listing",
    "PoolReport",
    "Shard",
    "derive_uid",
    "inspect_pool",
    "iter_chunks",
    "list_pool",
    "list_shards",
    "listed_versions",
    "listing_notes",
    "listing_table",
    "read_chunk",
    "read_rows",
    "require_outside_pool",
    "shards_of_listing",
]
