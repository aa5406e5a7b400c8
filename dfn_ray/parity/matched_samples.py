"""Samples of a pool that a reference has a score for, or says that it has none for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dfn_ray.config import Pool
from dfn_ray.errors import InputError
from dfn_ray.parity.reference import Reference
from dfn_ray.pool import iter_chunks, list_pool

LOOKED_AT = 64
"""Samples read for each one that is asked for, before the search for those that the reference has ends: 16,384 at the default,
or about 2 GB."""
MAX_BYTES = 2**29
"""Of the images that are held."""


@dataclass
class Matched:
    """Samples, their captions and encoded images, and the reference's scores."""

    uids: list[str] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list)
    """Of each sample: one, unless `pool.caption` says that there are several."""
    images: list[bytes] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    """NaN where the reference has none."""
    read: int = 0
    """Samples of the pool that were looked at."""
    unreadable: int = 0
    """Of those, samples without a caption or an image, which nobody could score."""

    @property
    def reference_N(self) -> np.ndarray:
        """The reference's scores as float64."""
        return np.array(self.reference, dtype=np.float64)


def matched_samples(pool: Pool, reference: Reference, count: int) -> Matched:
    """The first `count` readable samples of a pool, in its order, that the reference has.

    Raises InputError when there is none among those looked at, StorageError when the store fails.
    """
    matched, seen = Matched(), set[str]()
    held = 0
    for shard in list_pool(pool).shards:
        if shard.fault is not None:
            continue
        for _, table in iter_chunks(shard, pool):
            matched.read += len(table)
            readable = table.filter(table["status"].is_null())
            matched.unreadable += len(table) - len(readable)
            has, scores = reference.scores_of(readable["uid"])
            for row in np.flatnonzero(has):
                sample = readable.slice(int(row), 1).to_pylist()[0]
                if sample["uid"] in seen:
                    continue
                seen.add(sample["uid"])
                held += len(sample["image"])
                matched.uids.append(sample["uid"])
                text = sample["text"]
                matched.captions.append(text if isinstance(text, list) else [text])
                matched.images.append(sample["image"])
                matched.reference.append(float(scores[row]))
                if len(seen) == count or held > MAX_BYTES:
                    return matched
            if matched.read >= LOOKED_AT * count:
                return _require_some(matched, reference)
    return _require_some(matched, reference)


def _require_some(matched: Matched, reference: Reference) -> Matched:
    if not matched.uids:
        raise InputError(
            f"{reference.uri}: has none of the {matched.read:,} uids of the pool that were looked at; set pool.uri to the "
            "shards that it has scores of (--set pool.uri=...), and pool.uid as the file names samples"
        )
    return matched
