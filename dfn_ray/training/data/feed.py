"""The towers' inputs for a group's samples: decoded, augmented, captioned and tokenized."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from dfn_ray.config import Augmentation, Decode, Source
from dfn_ray.errors import InputError
from dfn_ray.images.augment import VariedTransform
from dfn_ray.images.decode import DecodedImages, decode_images
from dfn_ray.images.transform import ImageTransform
from dfn_ray.network.tokenizer import TokenizerSpec, tokenize
from dfn_ray.resolving.prompts import prompt
from dfn_ray.schema import Note, Reason, Status
from dfn_ray.training.data.group_samples import GroupInputs, RawSamples, read_group
from dfn_ray.training.data.seen import Spans, unseen

DECODED_TOGETHER = 256
"""Images that share a forked child, as in scoring."""
FAILURES = tuple(reason for reason in Reason if reason.status is Status.FAILED)
"""Reasons why an indexed sample is not trained on: all that decoding may return."""
COUNTED = (*(f"{Status.FAILED}/{reason}" for reason in FAILURES), *(note.value for note in Note))
"""The columns of `counts`: failed samples by reason, and samples by note."""
Unplaced = Callable[[int, int, np.ndarray], None]
"""Receives the counts of failed samples that belong to no row: (group, first place, counts)."""


@dataclass(frozen=True, kw_only=True)
class Feeding:
    """The settings for turning samples into inputs."""

    sources: tuple[Source, ...]
    captions: tuple[LabelCaptions | None, ...]
    """Captions of each source; None for sources without labels."""
    decode: Decode
    transform: ImageTransform
    augmentation: Augmentation | None
    tokenizer: TokenizerSpec
    seed: int


@dataclass(frozen=True)
class LabelCaptions:
    """Captions for labels: prompts from a class name and a template."""

    classnames: tuple[str, ...]
    templates: tuple[str, ...]

    def caption(self, label: str, rng: np.random.Generator) -> str:
        """Returns a prompt for a label by a random template. Raises InputError if unknown."""
        text = label.strip()
        if not text.isdecimal() or int(text) >= len(self.classnames):
            raise InputError(
                f"label {text[:40]!r}: need a number below {len(self.classnames)}, the number of "
                "classnames"
            )
        template = self.templates[rng.integers(len(self.templates))]
        return prompt(template, self.classnames[int(text)])


Inputs = dict[str, np.ndarray]
"""`image` uint8 (N, H, W, 3), `text` int32 (N, L), `place` int64 (N, 3): group, first and end of
the interval of places that a row covers, and `counts` int64 (N, len(COUNTED)): places in the
interval that failed, by reason, or have a note."""


def feed_group(
    inputs: GroupInputs, spans: Spans, *, feeding: Feeding, unplaced: Unplaced | None = None
) -> Iterator[Inputs]:
    """Yields the inputs of the samples of a group that `spans` do not cover, in the group's order.

    Each row covers an interval of places. Samples that fail to decode get no row: their places
    belong to the next row of the block of `DECODED_TOGETHER` samples, or to its last row, so the
    intervals tile the group. If no sample after them decodes, `unplaced` receives their counts.
    """
    raw = read_group(inputs, feeding.sources, seed=feeding.seed)
    size = len(raw)
    left = np.flatnonzero(unseen(size, spans))
    # A run of places ends where a span begins: an interval must not cover places that were seen.
    for run in np.split(left, np.flatnonzero(np.diff(left) > 1) + 1):
        uncovered = _Uncovered(int(run[0]) if len(run) else 0)
        for first in range(0, len(run), DECODED_TOGETHER):
            places = run[first : first + DECODED_TOGETHER]
            block = _inputs(raw, places, uncovered, inputs.group.number, feeding)
            if block is not None:
                yield block
        if unplaced is not None and uncovered.counts.any():
            unplaced(inputs.group.number, uncovered.start, uncovered.counts)


@dataclass
class _Uncovered:
    """Places of earlier blocks that the next row will cover, because no sample in them decoded."""

    start: int
    """The first place that no row covers yet."""
    counts: np.ndarray = field(default_factory=lambda: np.zeros(len(COUNTED), dtype=np.int64))
    """Counts of these places."""


def _inputs(
    raw: RawSamples, places: np.ndarray, uncovered: _Uncovered, group: int, feeding: Feeding
) -> Inputs | None:
    """The inputs at `places`; None if all of them failed."""
    seeds = [_seed(feeding.seed, group, place) for place in places.tolist()]
    decoded = _decode([raw.image[place] for place in places], tuple(seeds), feeding)
    kept = np.flatnonzero([reason is None for reason in decoded.reason])
    counts = np.zeros((max(1, len(kept)), len(COUNTED)), dtype=np.int64)
    counts[0] = uncovered.counts
    for at, reason in enumerate(decoded.reason):
        if reason is not None:
            column = COUNTED.index(f"{Status.FAILED}/{reason}")
            counts[min(np.searchsorted(kept, at), len(counts) - 1), column] += 1
    for note, count in decoded.notes.items():
        counts[0, COUNTED.index(note)] += count
    if not len(kept):
        uncovered.counts = counts[0]
        return None
    ends = places[kept] + 1
    ends[-1] = places[-1] + 1
    firsts = np.concatenate([[uncovered.start], ends[:-1]])
    uncovered.start, uncovered.counts = int(ends[-1]), np.zeros(len(COUNTED), dtype=np.int64)
    texts = [_caption(raw, int(places[at]), seeds[at], feeding) for at in kept]
    return {
        "image": decoded.pixels[0][kept],
        "text": tokenize(feeding.tokenizer, texts),
        "place": np.stack([np.full_like(ends, group), firsts, ends], axis=1),
        "counts": counts,
    }


def _decode(
    images: Sequence[memoryview], seeds: tuple[int, ...], feeding: Feeding
) -> DecodedImages:
    transform = feeding.transform
    if feeding.augmentation is not None:
        transform = VariedTransform(plain=transform, augmentation=feeding.augmentation, seeds=seeds)
    settings = feeding.decode
    return decode_images(
        images,
        [transform],
        mode=settings.mode,
        on_truncated=settings.on_truncated,
        max_pixels=settings.max_pixels,
        timeout_s=settings.timeout_s,
    )


def _caption(raw: RawSamples, place: int, seed: int, feeding: Feeding) -> str:
    source = int(raw.source[place])
    captions = feeding.captions[source]
    if captions is None:
        return raw.text[place]
    try:
        return captions.caption(raw.text[place], np.random.default_rng((seed, 1)))
    except InputError as error:
        uris = ", ".join(feeding.sources[source].pool.uri)
        raise InputError(f"sources.{source}: {uris}: {error}") from None


def _seed(seed: int, group: int, place: int) -> int:
    """A different number for every sample of every pass."""
    return int(np.random.SeedSequence((seed, group, place)).generate_state(1, np.uint64)[0])
