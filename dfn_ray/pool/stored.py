"""The pool listing as a table, for keeping beside a run."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pyarrow as pa

from dfn_ray.pool.shard import Shard
from dfn_ray.schema import ShardFault


def listing_table(shards: Sequence[Shard]) -> pa.Table:
    """The shards as a table: uri, name, size_bytes, fault (null for none), location.

    `location` holds the bytes of what is to be opened where `uri` only spells it, else null.
    """
    return pa.table(
        {
            "uri": pa.array([shard.uri for shard in shards], pa.string()),
            "name": pa.array([shard.name for shard in shards], pa.string()),
            "size_bytes": pa.array([shard.size_bytes for shard in shards], pa.int64()),
            "fault": pa.array([shard.fault for shard in shards], pa.string()),
            "location": pa.array(
                [shard.location and os.fsencode(shard.location) for shard in shards], pa.binary()
            ),
        }
    )


def listed_shards(listing: pa.Table) -> tuple[Shard, ...]:
    """The shards of a table that `listing_table` made."""
    return tuple(
        Shard(
            row["uri"],
            row["name"],
            row["size_bytes"],
            ShardFault(row["fault"]) if row["fault"] else None,
            os.fsdecode(row["location"]) if row.get("location") else None,
        )
        for batch in listing.to_batches()
        for row in batch.to_pylist()
    )
