"""The order of samples: a pure function of the index, the weights and the seed.

Samples come in *groups* of chunks from anywhere in the sources, which are read and shuffled
together. Each source is read in passes without end, each with a new order of its chunks. A group
ends where a pass ends, so no sample is in a group twice. Over all groups, the sources' shares equal
their weights to within one chunk each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GroupChunk:
    """A chunk in a group."""

    source: int
    number: int
    """Number of the chunk in its source's index."""
    turn: int
    """Number of the pass over the source, from 0."""
    samples: int


@dataclass(frozen=True)
class ShuffleGroup:
    """Chunks that are read and shuffled together."""

    number: int
    chunks: tuple[GroupChunk, ...]

    @property
    def samples(self) -> int:
        """Number of samples, including those that will fail to decode."""
        return sum(chunk.samples for chunk in self.chunks)


def shuffled_groups(
    samples: Sequence[np.ndarray],
    weights: Sequence[float] | None,
    *,
    group_samples: int,
    seed: int,
) -> Iterator[ShuffleGroup]:
    """Yields groups without end, from chunks that have samples.

    `samples[s][n]` is the number of samples in chunk n of source s. `weights` are the sources'
    shares of the samples seen; None: in proportion to their sizes.
    """
    totals = [int(counts.sum()) for counts in samples]
    shares = np.array(totals if weights is None else weights, dtype=np.float64)
    shares /= shares.sum()
    sources = [_ChunkPasses(counts, source, seed) for source, counts in enumerate(samples)]
    taken = np.zeros(len(samples), dtype=np.int64)
    number = 0
    while True:
        chunks: list[GroupChunk] = []
        held = 0
        while held < group_samples:
            # The source furthest behind its share, if each source took one more sample.
            behind = int(np.argmin((taken + 1) / shares))
            chunk, ends_pass = sources[behind].take()
            chunks.append(chunk)
            taken[behind] += chunk.samples
            held += chunk.samples
            if ends_pass:
                break
        yield ShuffleGroup(number, tuple(chunks))
        number += 1


class _ChunkPasses:
    """Endless passes over the chunks of one source."""

    def __init__(self, samples: np.ndarray, source: int, seed: int) -> None:
        self._samples, self._source, self._seed = samples, source, seed
        self._used = np.flatnonzero(samples)
        self._turn, self._next = -1, 0
        self._order = np.empty(0, dtype=np.int64)

    def take(self) -> tuple[GroupChunk, bool]:
        """The next chunk, and True if it is the last of its pass."""
        if self._next == len(self._order):
            self._turn, self._next = self._turn + 1, 0
            rng = np.random.default_rng((self._seed, self._source, self._turn))
            self._order = rng.permutation(self._used)
        number = int(self._order[self._next])
        self._next += 1
        chunk = GroupChunk(self._source, number, self._turn, int(self._samples[number]))
        return chunk, self._next == len(self._order)
