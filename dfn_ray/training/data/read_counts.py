"""Counts of samples used, failed and rejected, and of bad shards, in indexing and in training.

For each source, read = usable + failed + rejected. The limits are those of filtering, so that a
pool that stops a filtering run also stops a training run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.config import Execution, TrainRecipe
from dfn_ray.pool.error_limits import (
    ErrorLimits,
    Faults,
    by_reason,
    failures,
    first_fault,
    rejections,
)
from dfn_ray.preparing.statuses import status_counts
from dfn_ray.schema import Note, Reason, Status, status_key

USABLE = "usable"
CHECKED_AFTER = Execution().limits_after_samples
"""Samples tried before failures in training are checked, except at the end."""
SEVERAL_FRACTION = 0.1
"""Fraction of samples with apparently several captions that causes a warning: alternative texts of
web pages contain a line break now and then."""
NAMED_SHARDS = 10
"""Bad shards that a result names; the index contains all."""
_FAILED = f"{Status.FAILED}/"


@dataclass(frozen=True, kw_only=True)
class SourceCounts:
    """Counts of samples read, failed and rejected in indexing a source."""

    name: str
    shards: int
    """Shards in the listing."""
    counts: Mapping[str, int]
    """Samples: `usable`, or by `status/reason`."""
    notes: Mapping[str, int]
    """Samples by `Note`."""
    faults: Faults
    per_pass: int
    """Samples in a pass: usable ones with their copies in a uid list, or the sample_count drawn."""

    @property
    def samples(self) -> int:
        """Number of samples read."""
        return sum(self.counts.values())

    @property
    def rejected(self) -> dict[str, int]:
        """Good samples that the recipe excludes, by reason."""
        return rejections(self.counts)

    def values(self) -> dict[str, Any]:
        """Returns the counts as JSON values, with the names of the first bad shards."""
        named = list(self.faults.items())[:NAMED_SHARDS]
        return {
            "name": self.name,
            "shards": self.shards,
            "bad_shards": len(self.faults),
            "faults": {uri: f"{fault}: {detail}" for uri, (fault, detail) in named},
            "samples": self.samples,
            "usable": self.counts.get(USABLE, 0),
            "per_pass": self.per_pass,
            "failed": failures(self.counts),
            "rejected": self.rejected,
            "notes": dict(self.notes),
        }

    def warning(self) -> str | None:
        """Returns advice if many samples seem to have several captions but are read as one text."""
        several = self.notes.get(Note.SEVERAL_CAPTIONS, 0)
        if several < max(1, SEVERAL_FRACTION * self.samples):
            return None
        return (
            f"warning: source {self.name}: {several:,} of {self.samples:,} samples seem to have "
            "several captions in one "
            'text; each is trained on as one text, or fails. Set pool.caption = "lines" to draw '
            'one line in each pass, or "list" for one item of a list'
        )

    def line(self) -> str:
        """Returns the counts as a line of text."""
        failed, rejected = failures(self.counts), self.rejected
        parts = [
            f"source {self.name}: {self.samples:,} samples read, {self.per_pass:,} used per pass",
            f"{sum(failed.values()):,} failed" + (f" ({by_reason(failed)})" if failed else ""),
        ]
        if rejected:
            parts.append(f"rejected: {by_reason(rejected)}")
        if self.notes:
            parts.append(by_reason(self.notes))
        bad = f"{len(self.faults):,} of {self.shards:,} shards bad"
        parts.append(f"{bad}, e.g. {first_fault(self.faults)}" if self.faults else bad)
        return "; ".join(parts)


def shard_counts(samples: pa.Table, copies: np.ndarray) -> Counter[str]:
    """Returns the samples of a chunk by outcome; `copies`: of each sample in a pass."""
    decided = pc.is_valid(samples["status"])
    counts = status_counts(samples.filter(decided))
    open_N = ~decided.to_numpy()
    has_image_N = pc.is_valid(samples["image"]).to_numpy()
    for key, among_N in (
        (USABLE, copies > 0),
        (status_key(Status.REJECTED, Reason.NOT_LISTED), open_N & has_image_N & (copies == 0)),
        (status_key(Status.FAILED, Reason.MISSING_IMAGE), open_N & ~has_image_N),
    ):
        if among_N.any():
            counts[key] += int(among_N.sum())
    return counts


def limits_of(recipe: TrainRecipe) -> ErrorLimits:
    """Returns the limits of a training recipe."""
    return ErrorLimits(
        max_failed_fraction=recipe.max_failed_fraction,
        max_bad_shard_fraction=recipe.max_bad_shard_fraction,
    )


def check_sources(sources: Iterable[SourceCounts], limits: ErrorLimits) -> None:
    """Raises ErrorLimitExceededError if a source has too many bad shards or failed samples."""
    for number, source in enumerate(sources):
        where = f"sources.{number} ({source.name}): "
        limits.check_shards(source.faults, source.shards, where=where)
        limits.check_samples(source.counts, where=where)


def check_training(
    read: Mapping[str, int],
    trained: Mapping[str, int],
    samples_seen: int,
    limits: ErrorLimits,
    *,
    where: str,
    final: bool,
) -> None:
    """Raises ErrorLimitExceededError if too many samples failed, in indexing and in training.

    `read` are the counts of all sources; failures in indexing are scaled to the samples tried.
    """
    failed = failures(trained)
    tried = samples_seen + sum(failed.values())
    if not tried or (tried < CHECKED_AFTER and not final):
        return
    usable = max(1, read.get(USABLE, 0))
    counts = Counter({"seen": samples_seen} | {f"{_FAILED}{k}": n for k, n in failed.items()})
    for reason, count in failures(read).items():
        counts[f"{_FAILED}{reason}"] += count * tried // usable
    limits.check_samples(counts, where=where)


def training_values(trained: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Returns counts from training as JSON values: failures by reason, and notes."""
    return {
        "failed": failures(trained),
        "notes": {note.value: trained[note] for note in Note if trained.get(note)},
    }
