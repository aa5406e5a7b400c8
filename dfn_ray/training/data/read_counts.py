"""Counts of what training reads: samples used, failed and left out, bad shards; by source, and while it trains.

Of a source, read = usable + failed + left out. Judged by the limits that filtering has, so that a pool which stops a
filter stops a training.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where no type checker sees them)
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.config import TrainRecipe
from dfn_ray.preparing.error_limits import (
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
JUDGED_AFTER = 10_000
"""Samples tried before failures while training are judged, and at the end: `execution.budget_after_samples`."""
SEVERAL_FRACTION = 0.1
"""Samples that look as if they had several captions before a source is warned of: alternative texts of web pages have a
line break now and then."""
NAMED_SHARDS = 10
"""Bad shards that a result names; the index has all."""
_FAILED = f"{Status.FAILED}/"


@dataclass(frozen=True, kw_only=True)
class SourceCounts:
    """What indexing a source read, failed and left out."""

    name: str
    shards: int
    """In the listing."""
    counts: Mapping[str, int]
    """Samples: `usable`, or by `status/reason`."""
    notes: Mapping[str, int]
    """Samples by `Note`."""
    faults: Faults
    per_pass: int
    """Samples that a pass has: usable ones, as often as a uid list has them, or the sample_count drawn of them."""

    @property
    def samples(self) -> int:
        """Samples read."""
        return sum(self.counts.values())

    @property
    def left_out(self) -> dict[str, int]:
        """Good samples that the recipe leaves out, by reason."""
        return rejections(self.counts)

    def values(self) -> dict[str, Any]:
        """The counts as JSON, with the first bad shards named."""
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
            "left_out": self.left_out,
            "notes": dict(self.notes),
        }

    def warning(self) -> str | None:
        """What to set where the samples look as if they had several captions and are trained on as if they had one."""
        several = self.notes.get(Note.SEVERAL_CAPTIONS, 0)
        if several < max(1, SEVERAL_FRACTION * self.samples):
            return None
        return (
            f"warning: source {self.name}: {several:,} of {self.samples:,} samples look as if they had several captions "
            'in one; each is trained on as one text, or fails. pool.caption = "lines" draws one line in each pass, '
            '"list" one of a list'
        )

    def line(self) -> str:
        """The counts for people."""
        failed, left_out = failures(self.counts), self.left_out
        parts = [
            f"source {self.name}: {self.samples:,} samples read, {self.per_pass:,} used in a pass",
            f"{sum(failed.values()):,} failed" + (f" ({by_reason(failed)})" if failed else ""),
        ]
        if left_out:
            parts.append(f"left out {by_reason(left_out)}")
        if self.notes:
            parts.append(by_reason(self.notes))
        bad = f"{len(self.faults):,} of {self.shards:,} shards bad"
        parts.append(f"{bad}, e.g. {first_fault(self.faults)}" if self.faults else bad)
        return "; ".join(parts)


def shard_counts(samples: pa.Table, copies: np.ndarray) -> Counter[str]:
    """The samples of a chunk by what becomes of them; `copies`: how often each comes in a pass."""
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
    """The limits of a training recipe."""
    return ErrorLimits(
        max_failed_fraction=recipe.max_failed_fraction,
        max_bad_shard_fraction=recipe.max_bad_shard_fraction,
    )


def judge_sources(sources: Iterable[SourceCounts], limits: ErrorLimits) -> None:
    """Raise ErrorBudgetExceededError when a source has more bad shards or failed samples than the recipe allows."""
    for number, source in enumerate(sources):
        where = f"sources.{number} ({source.name}): "
        limits.check_shards(source.faults, source.shards, where=where)
        limits.check_samples(source.counts, where=where)


def judge_trained(
    read: Mapping[str, int],
    trained: Mapping[str, int],
    samples_seen: int,
    limits: ErrorLimits,
    *,
    where: str,
    final: bool,
) -> None:
    """Raise ErrorBudgetExceededError when too many samples failed, in reading or while they were trained on.

    `read` are the counts of all sources; for every sample tried, as many failed in reading as in the whole index.
    """
    failed = failures(trained)
    tried = samples_seen + sum(failed.values())
    if not tried or (tried < JUDGED_AFTER and not final):
        return
    usable = max(1, read.get(USABLE, 0))
    counts = Counter({"seen": samples_seen} | {f"{_FAILED}{k}": n for k, n in failed.items()})
    for reason, count in failures(read).items():
        counts[f"{_FAILED}{reason}"] += count * tried // usable
    limits.check_samples(counts, where=where)


def training_values(trained: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Counts from training as JSON: failures by reason, notes."""
    return {
        "failed": failures(trained),
        "notes": {note.value: trained[note] for note in Note if trained.get(note)},
    }
