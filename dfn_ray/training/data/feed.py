"""From the samples of a group to what the towers read: decoded, varied, captioned, tokenised; in CPU tasks."""

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
from dfn_ray.preparing.prompts import prompt
from dfn_ray.schema import REJECTIONS, Note, Reason, Status
from dfn_ray.training.data.group_samples import GroupInputs, RawSamples, read_group
from dfn_ray.training.data.seen import Spans, unseen

DECODED_TOGETHER = 256
"""Images that share a forked child, as in scoring."""
FAILURES = tuple(reason for reason in Reason if reason not in REJECTIONS)
"""Why a sample that was indexed is not trained on: any reason that decoding may give."""
COUNTED = (*(f"{Status.FAILED}/{reason}" for reason in FAILURES), *(note.value for note in Note))
"""The columns of `counts`: failed samples by reason, and samples by note."""
Unplaced = Callable[[int, int, np.ndarray], None]
"""Takes the counts of failed samples that no row stands for: (group, their first place, counts as in `counts`)."""


@dataclass(frozen=True, kw_only=True)
class Feeding:
    """Everything that turns samples into inputs."""

    sources: tuple[Source, ...]
    captions: tuple[LabelCaptions | None, ...]
    """Of each source with labels."""
    decode: Decode
    transform: ImageTransform
    augmentation: Augmentation | None
    tokenizer: TokenizerSpec
    seed: int


@dataclass(frozen=True)
class LabelCaptions:
    """LabelCaptions for labels: `template.format(class name)`."""

    classnames: tuple[str, ...]
    templates: tuple[str, ...]

    def caption(self, label: str, rng: np.random.Generator) -> str:
        """A caption for a label, by a template that `rng` draws. Raises InputError for a label without a name."""
        text = label.strip()
        if not text.isdecimal() or int(text) >= len(self.classnames):
            raise InputError(
                f"label {text[:40]!r}: need a number below {len(self.classnames)}, the number of classnames"
            )
        template = self.templates[rng.integers(len(self.templates))]
        return prompt(template, self.classnames[int(text)])


Inputs = dict[str, np.ndarray]
"""`image` uint8 (N, H, W, 3), `text` int32 (N, L), `place` int64 (N, 3): group, first and end, and `counts` int64
(N, len(COUNTED)): how many of the places it reaches over failed, by reason, or have a note."""


def feed_group(
    inputs: GroupInputs, spans: Spans, *, feeding: Feeding, unplaced: Unplaced | None = None
) -> Iterator[Inputs]:
    """The inputs of the samples of a group that `spans` do not cover, in the group's order, some hundred at a time.

    Every place belongs to a row: a row's place reaches back over the failed samples before it, and that of the
    last one of a piece also over those behind it. Where nothing after them decodes, `unplaced` takes their counts.
    """
    raw = read_group(inputs, feeding.sources, seed=feeding.seed)
    size = len(raw)
    left = np.flatnonzero(unseen(size, spans))
    # A run of places ends where a span begins: a row must not reach over what was seen.
    for run in np.split(left, np.flatnonzero(np.diff(left) > 1) + 1):
        reach = _Reach(int(run[0]) if len(run) else 0)
        for first in range(0, len(run), DECODED_TOGETHER):
            places = run[first : first + DECODED_TOGETHER]
            block = _inputs(raw, places, reach, inputs.group.number, feeding)
            if block is not None:
                yield block
        if unplaced is not None and reach.counts.any():
            unplaced(inputs.group.number, reach.start, reach.counts)


@dataclass
class _Reach:
    """What the next row stands for beside itself."""

    start: int
    """The first place that no row has covered yet."""
    counts: np.ndarray = field(default_factory=lambda: np.zeros(len(COUNTED), dtype=np.int64))
    """Of earlier blocks, that no row has taken yet."""


def _inputs(
    raw: RawSamples, places: np.ndarray, reach: _Reach, group: int, feeding: Feeding
) -> Inputs | None:
    """The inputs at `places`; None when all of them failed."""
    seeds = [_seed(feeding.seed, group, place) for place in places.tolist()]
    decoded = _decode([raw.image[place] for place in places], tuple(seeds), feeding)
    kept = np.flatnonzero([reason is None for reason in decoded.reason])
    counts = np.zeros((max(1, len(kept)), len(COUNTED)), dtype=np.int64)
    counts[0] = reach.counts
    for at, reason in enumerate(decoded.reason):
        if reason is not None:
            column = COUNTED.index(f"{Status.FAILED}/{reason}")
            counts[min(np.searchsorted(kept, at), len(counts) - 1), column] += 1
    for note, count in decoded.notes.items():
        counts[0, COUNTED.index(note)] += count
    if not len(kept):
        reach.counts = counts[0]
        return None
    ends = places[kept] + 1
    ends[-1] = places[-1] + 1
    firsts = np.concatenate([[reach.start], ends[:-1]])
    reach.start, reach.counts = int(ends[-1]), np.zeros(len(COUNTED), dtype=np.int64)
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
    how = feeding.decode
    return decode_images(
        images,
        [transform],
        mode=how.mode,
        on_truncated=how.on_truncated,
        max_pixels=how.max_pixels,
        timeout_s=how.timeout_s,
    )


def _caption(raw: RawSamples, place: int, seed: int, feeding: Feeding) -> str:
    captions = feeding.captions[int(raw.source[place])]
    if captions is None:
        return raw.text[place]
    return captions.caption(raw.text[place], np.random.default_rng((seed, 1)))


def _seed(seed: int, group: int, place: int) -> int:
    """A number of its own for every sample of every pass."""
    return int(np.random.SeedSequence((seed, group, place)).generate_state(1, np.uint64)[0])
