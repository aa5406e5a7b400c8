"""Shards of image-text pairs as a stream of chunks. Imports neither Ray nor torch.

    shards = list_shards(pool)                         # one listing per folder, no shard opened
    for chunk, table in iter_chunks(shards[0], pool):  # one chunk in memory
        ...                                            # table: SAMPLE_SCHEMA, good and bad samples

A bad sample is a row with a reason, a bad shard a fault on its last chunk; only storage failures
raise.
"""

from dfn_ray.pool.inspect import PoolReport, inspect_pool
from dfn_ray.pool.listing.list_pool import list_pool, list_shards
from dfn_ray.pool.listing.listing_table import listed_shards, listed_versions, listing_table
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
    "listed_shards",
    "listed_versions",
    "listing_notes",
    "listing_table",
    "read_chunk",
    "read_rows",
    "require_outside_pool",
]
