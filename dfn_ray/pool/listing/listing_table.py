"""The listing of a pool as a table, to be stored with a run."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pyarrow as pa

from dfn_ray.pool.shard import Shard
from dfn_ray.schema import ShardFault


def listing_table(shards: Sequence[Shard]) -> pa.Table:
    """The shards as a table: uri, name, size_bytes, fault (null for none), location, version.

    `location` is the path to open, as bytes, if `uri` only spells it with escapes; `version` is the
    store's version of the content, if it has one; both are null otherwise.
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
            "version": pa.array([shard.version for shard in shards], pa.string()),
        }
    )


def shards_of_listing(listing: pa.Table) -> tuple[Shard, ...]:
    """The shards of a table from `listing_table`, without versions.

    A version holds within one attempt only.
    """
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


def listed_versions(listing: pa.Table) -> dict[str, str]:
    """The stores' versions of the shards in such a table by URI, for those that have one.

    Tables of format 1 have none.
    """
    if "version" not in listing.column_names:
        return {}
    columns = (listing[name].to_pylist() for name in ("uri", "version"))
    return {uri: version for uri, version in zip(*columns, strict=True) if version is not None}
