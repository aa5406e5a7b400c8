"""The keys of samples already yielded, in a bounded number of bytes."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.schema import ShardFault

MAX_SAMPLES = 2**20
"""Limit for a compressed tar of any size: about 100 MiB of digests. Shards hold 1,000 to 100,000
samples."""
_SAMPLE_BYTES = 512
"""Bytes of the file for each further sample: a header in a plain tar, and less than any compressed
image."""


class ClosedKeys:
    """A set of keys, as BLAKE2b-128 digests.

    Holds about 100 bytes per key, for at most `MAX_SAMPLES` keys or one per 512 bytes of the file:
    gzip packs names that differ little a thousand times smaller.
    """

    def __init__(self, shard_bytes: int) -> None:
        self._most = max(MAX_SAMPLES, shard_bytes // _SAMPLE_BYTES)
        self._digests: set[bytes] = set()

    def __contains__(self, key: str) -> bool:
        return _digest(key) in self._digests

    def add(self, keys: Iterable[str]) -> None:
        """Adds the keys of a chunk.

        Raises ShardDamageError if there are more than any real shard has.
        """
        self._digests.update(map(_digest, keys))
        if len(self._digests) > self._most:
            raise ShardDamageError(
                ShardFault.UNREADABLE,
                f"more than {self._most:,} samples, which a real archive of its size cannot hold",
            )


def _digest(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=16).digest()
