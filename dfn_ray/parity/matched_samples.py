"""Samples of a pool whose uids are in a reference, with or without a score."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dfn_ray.config import Pool
from dfn_ray.errors import InputError
from dfn_ray.parity.reference import Reference
from dfn_ray.pool import iter_chunks, list_pool

READ_PER_SAMPLE = 64
"""Samples read per requested sample before the search for matches ends: 16,384 at the default, or
about 2 GB."""
MAX_BYTES = 2**29
"""Upper bound on the encoded images held in memory."""


@dataclass
class MatchedSamples:
    """Samples, their captions and encoded images, and the reference's scores."""

    uids: list[str] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list)
    """Captions by sample: one each, unless `pool.caption` selects several."""
    images: list[bytes] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    """Scores; NaN where the reference has none."""
    read: int = 0
    """Samples of the pool that were read."""
    unreadable: int = 0
    """Of those, samples without a caption or an image, which cannot be scored."""

    @property
    def reference_N(self) -> np.ndarray:
        """The reference's scores as float64."""
        return np.array(self.reference, dtype=np.float64)


def matched_samples(pool: Pool, reference: Reference, count: int) -> MatchedSamples:
    """The first `count` readable samples of a pool, in its order, that the reference contains.

    Raises InputError when none of the samples read is in the reference, StorageError when the store
    fails.
    """
    matched, seen = MatchedSamples(), set[str]()
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
            if matched.read >= READ_PER_SAMPLE * count:
                return _require_some(matched, reference)
    return _require_some(matched, reference)


def _require_some(matched: MatchedSamples, reference: Reference) -> MatchedSamples:
    if not matched.uids:
        raise InputError(
            f"{reference.uri}: contains none of the {matched.read:,} uids read from the pool. Set "
            "pool.uri to the shards that it has scores for (--set pool.uri=...), and set pool.uid "
            "so that uids are made as in the reference"
        )
    return matched
