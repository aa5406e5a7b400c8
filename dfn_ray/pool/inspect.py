"""A quick inspection of a pool, before anything is scored: its content and its problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from dfn_ray.config import Decode, Pool
from dfn_ray.console.tables import note_rows
from dfn_ray.images.header import UnreadableImageError, decoded_pixels, open_image
from dfn_ray.pool.listing.list_pool import list_pool
from dfn_ray.pool.listing.remarks import Listing, listing_notes
from dfn_ray.pool.reading import iter_chunks, shard_format
from dfn_ray.pool.shard import Shard, ShardDamageError
from dfn_ray.schema import Reason
from dfn_ray.uids.derived import derive_uid

MAX_PIXELS = Decode().max_pixels
"""Images with more are `too_many_pixels`, by the default of filtering."""
_QUANTILES = {"min": 0.0, "p5": 0.05, "p50": 0.5, "p95": 0.95, "max": 1.0}


@dataclass(frozen=True, kw_only=True)
class ExampleRow:
    """A readable sample, for people to look at."""

    uid: str
    key: str
    caption: str
    """All captions if there are several."""
    width: int
    """Pixels, from the header."""
    height: int
    image_bytes: int


@dataclass(frozen=True, kw_only=True)
class PoolReport:
    """Result of inspecting a pool. Sample counts are of the first chunk of each inspected shard."""

    shards: int
    """Shards in the listing."""
    bytes: int
    """Their size in the store."""
    listed_faults: dict[str, int]
    """Shards that the listing alone shows to be bad, by fault."""
    listing_notes: tuple[str, ...]
    """Messages about entries that the listing skipped, or that may be unintended."""
    shards_inspected: int
    formats: dict[str, int]
    """Formats of the inspected shards."""
    shard_faults: dict[str, str]
    """Faults of inspected shards, by name of the shard."""
    samples_seen: int
    samples_estimated: int
    """Samples in the whole pool, extrapolated from the bytes per sample seen."""
    statuses: dict[str, int]
    """Samples seen, by the reason of their failure, or `readable`."""
    image_faults: dict[str, int]
    """Images that cannot be opened or are too large, by reason; also included in `statuses`."""
    image_formats: dict[str, int]
    """Formats of readable samples' images."""
    quantiles: dict[str, dict[str, float]]
    """min, p5, p50, p95 and max of `width`, `height` (pixels) and `caption_chars`."""
    duplicate_uids: int
    """Samples seen whose uid another sample seen has too."""
    derived_uids: int
    """Readable samples seen that bring no uid, so that it is derived from shard and key."""
    notes: dict[str, int]
    """Samples that were read in an unusual way, by note."""
    examples: tuple[ExampleRow, ...]

    def lines(self) -> list[str]:
        """The report as plain text."""
        return [
            f"shards       {self.shards:,} ({self.bytes / 1e9:,.3f} GB)"
            f"{_counts(self.listed_faults, ', bad: ')}",
            *self.listing_notes,
            f"inspected    the first chunk of {self.shards_inspected:,} shards"
            f"{_counts(self.formats, ': ')}",
            f"samples      {self.samples_seen:,} read{_counts(self.statuses, ': ')}",
            f"estimate     about {self.samples_estimated:,} samples in the pool",
            f"images       {self._images_line()}",
            *(
                f"{name:<12} "
                + ", ".join(f"{label} {value:,.0f}" for label, value in values.items())
                for name, values in self.quantiles.items()
            ),
            f"uids         {self.duplicate_uids:,} duplicates among the samples read",
            *(f"note         {count:,} {sentence}" for sentence, count in note_rows(self.notes)),
            *(f"bad shard    {name}: {what}" for name, what in self.shard_faults.items()),
            *(
                f"example      {row.uid}  {row.key}  {row.width}x{row.height}  "
                f"{row.image_bytes:,} B  {' '.join(row.caption.split())[:80]}"
                for row in self.examples
            ),
        ]

    def _images_line(self) -> str:
        opened, failed = sum(self.image_formats.values()), sum(self.image_faults.values())
        if not opened + failed:
            return "none"
        # Rounded down, so that 100.0% means all.
        share = 1000 * opened // (opened + failed) / 10
        return (
            f"{share:.1f}% of {opened + failed:,} can be opened{_counts(self.image_formats, ': ')}"
            f"{_counts(self.image_faults, '; not opened: ')}"
        )


@dataclass(slots=True)
class _Findings:
    """Results of the inspection so far."""

    formats: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    image_faults: Counter[str] = field(default_factory=Counter)
    image_formats: Counter[str] = field(default_factory=Counter)
    uids: Counter[str] = field(default_factory=Counter)
    derived_uids: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    widths: list[int] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    caption_chars: list[int] = field(default_factory=list)
    bytes_read: int = 0


def inspect_pool(
    pool: Pool, *, shards: int = 8, samples: int = 5, listed: Listing | None = None
) -> PoolReport:
    """Inspects the first chunk of `shards` shards spread evenly over the pool.

    `samples` is the number of examples to include, `listed` a listing of the pool if one exists
    already. Every image of the chunk is opened but not decoded: sizes come from headers, and damage
    behind a header is not detected. Raises InputError if there is no pool, StorageError if it
    cannot be read.
    """
    listing = list_pool(pool) if listed is None else listed
    shards_of_listing = listing.shards
    readable = [shard for shard in shards_of_listing if shard.fault is None]
    chosen = _evenly_spaced(readable, shards)
    findings = _Findings()
    examples: list[ExampleRow] = []
    for shard in chosen:
        examples += _inspect_shard(
            shard, pool, findings, per_shard=-(-samples // max(len(chosen), 1))
        )
    total = sum(shard.size_bytes for shard in readable)
    count = findings.statuses.total()
    return PoolReport(
        shards=len(shards_of_listing),
        bytes=sum(shard.size_bytes for shard in shards_of_listing),
        listed_faults=dict(
            Counter(str(shard.fault) for shard in shards_of_listing if shard.fault is not None)
        ),
        listing_notes=tuple(listing_notes(listing)),
        shards_inspected=len(chosen),
        formats=dict(findings.formats),
        shard_faults=findings.faults,
        samples_seen=count,
        samples_estimated=round(count * total / findings.bytes_read) if findings.bytes_read else 0,
        statuses=dict(findings.statuses),
        image_faults=dict(findings.image_faults),
        image_formats=dict(findings.image_formats),
        quantiles={
            name: _quantiles(values)
            for name, values in (
                ("width", findings.widths),
                ("height", findings.heights),
                ("caption_chars", findings.caption_chars),
            )
            if values
        },
        duplicate_uids=count - len(findings.uids),
        derived_uids=findings.derived_uids,
        notes=dict(findings.notes),
        examples=tuple(examples[:samples]),
    )


def _inspect_shard(
    shard: Shard, pool: Pool, findings: _Findings, per_shard: int
) -> list[ExampleRow]:
    """Records the content of a shard's first chunk; returns its first readable samples."""
    try:
        findings.formats[shard_format(shard, pool).value] += 1
    except ShardDamageError:
        findings.formats["unknown"] += 1
    examples: list[ExampleRow] = []
    for chunk, table in islice(iter_chunks(shard, pool), 1):
        findings.bytes_read += chunk.bytes_read
        findings.notes.update(chunk.notes)
        if chunk.fault is not None:
            findings.faults[shard.name] = f"{chunk.fault}: {chunk.detail}"
        for row in table.to_pylist():
            findings.uids[row["uid"]] += 1
            if row["status"] is not None:
                findings.statuses[row["reason"]] += 1
                continue
            header = _header(row["image"])
            if isinstance(header, Reason):
                findings.statuses[header.value] += 1
                findings.image_faults[header.value] += 1
                continue
            form, width, height = header
            findings.statuses["readable"] += 1
            findings.derived_uids += row["uid"] == derive_uid(shard.name, row["key"])
            findings.image_formats[form] += 1
            captions = row["text"] if pool.several_captions else [row["text"]]
            findings.caption_chars.extend(map(len, captions))
            findings.widths.append(width)
            findings.heights.append(height)
            if len(examples) < per_shard:
                examples.append(
                    ExampleRow(
                        uid=row["uid"],
                        key=row["key"],
                        caption=" | ".join(captions),
                        width=width,
                        height=height,
                        image_bytes=len(row["image"]),
                    )
                )
    return examples


def _header(data: bytes) -> tuple[str, int, int] | Reason:
    """Format, width and height from the image's header, or the reason not to decode it."""
    try:
        with open_image(data) as image:
            if decoded_pixels(image, data) > MAX_PIXELS:
                return Reason.TOO_MANY_PIXELS
            return (image.format or "unknown").lower(), *image.size
    except UnreadableImageError as error:
        return error.reason


def _evenly_spaced(shards: Sequence[Shard], count: int) -> list[Shard]:
    """`count` shards at even distances, starting with the first."""
    step = max(1, len(shards) / max(count, 1))
    return [shards[int(index * step)] for index in range(min(count, len(shards)))]


def _quantiles(values: list[int]) -> dict[str, float]:
    results = np.quantile(np.array(values), list(_QUANTILES.values()))
    return dict(zip(_QUANTILES, results.tolist(), strict=True))


def _counts(counts: dict[str, int], before: str = "") -> str:
    text = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
    return before + text if text else ""
