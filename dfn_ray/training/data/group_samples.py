"""The samples of a chunk that are trained on, and the samples of a group in its order."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.config import Source
from dfn_ray.errors import ShardChangedError
from dfn_ray.pool import Shard, read_chunk
from dfn_ray.schema import Chunk
from dfn_ray.training.data.caption_draws import draw_caption, visit_numbers
from dfn_ray.training.data.order import ShuffleGroup
from dfn_ray.uids.lookup import UidList

READERS = 8
"""Chunks of a group that are read in parallel: on an object store each waits for 1 or 2
requests."""


@dataclass(frozen=True)
class RawSamples:
    """Samples as stored in their shards."""

    image: tuple[memoryview, ...]
    text: tuple[str, ...]
    source: np.ndarray
    """Position of each sample's source in the recipe."""

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True)
class GroupInputs:
    """A group with the location of its chunks."""

    group: ShuffleGroup
    chunks: tuple[tuple[Shard, Chunk], ...]
    """Shard and chunk of each of `group.chunks`."""


def copies_of(samples: pa.Table, source: Source) -> np.ndarray:
    """Returns the copies of each sample per pass: 0 if unusable, else 1 or the uid list's count."""
    usable = pc.and_(pc.is_null(samples["status"]), pc.is_valid(samples["image"])).to_numpy()
    copies = usable.astype(np.int64)
    if source.uid_list is not None and usable.any():
        rows = np.flatnonzero(usable)
        copies[rows] = UidList(source.uid_list, "", 0).counts(samples["uid"].take(pa.array(rows)))
    return copies


def read_group(inputs: GroupInputs, sources: Sequence[Source], *, seed: int) -> RawSamples:
    """Returns the samples of a group in its order, with their copies and one drawn caption each.

    Raises ShardChangedError if a shard has changed since it was indexed.
    """
    group = inputs.group

    def read(at: int) -> tuple[list[memoryview], list[str]]:
        drawn, (shard, chunk) = group.chunks[at], inputs.chunks[at]
        source = sources[drawn.source]
        samples = read_chunk(shard, source.pool, chunk)
        rows = np.repeat(np.arange(len(samples)), copies_of(samples, source))
        if len(rows) < drawn.samples or (len(rows) > drawn.samples and source.sample_count is None):
            raise ShardChangedError(
                f"{shard.uri}: rows {chunk.first_row} to {chunk.first_row + chunk.rows} have "
                f"{len(rows)} usable samples, but had {drawn.samples} when they were indexed; the "
                "shard has changed since. Train on it in a new run"
            )
        if len(rows) > drawn.samples:
            # The seed does not include the turn, so that every pass draws the same samples.
            rng = np.random.default_rng((seed, drawn.source, drawn.number))
            rows = np.sort(rng.choice(rows, drawn.samples, replace=False))
        taken = samples.take(pa.array(rows))
        images = [memoryview(value.as_buffer()) for value in taken["image"]]
        texts = taken["text"].to_pylist()
        if source.pool.several_captions:
            uids, visits = taken["uid"].to_pylist(), visit_numbers(rows, drawn.turn).tolist()
            texts = [
                draw_caption(captions, uid, visit, (seed, drawn.source))
                for captions, uid, visit in zip(texts, uids, visits, strict=True)
            ]
        return images, texts

    with ThreadPoolExecutor(READERS) as pool:
        read_chunks = list(pool.map(read, range(len(group.chunks))))
    images = [image for of_chunk, _ in read_chunks for image in of_chunk]
    texts = [text for _, of_chunk in read_chunks for text in of_chunk]
    source_N = np.repeat([c.source for c in group.chunks], [c.samples for c in group.chunks])
    order = np.random.default_rng((seed, group.number)).permutation(group.samples)
    return RawSamples(
        tuple(images[at] for at in order), tuple(texts[at] for at in order), source_N[order]
    )
