"""Checks that the recipe's pool can be listed and read, and that its samples look right."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from dfn_ray.config import Recipe
from dfn_ray.console.tables import size
from dfn_ray.dry_run.finding import Finding, change
from dfn_ray.dry_run.shard_faults import execution_limit, listing_finding
from dfn_ray.errors import InputError, StorageError
from dfn_ray.pool import PoolReport, Shard, inspect_pool, list_pool, listing_notes

SHARDS = 8
"""Shards inspected, evenly spaced in the listing."""
CLIP_CAPTION_CHARS = 300
"""Approximate length that fits into CLIP's 77 tokens."""


def pool_findings(
    recipe: Recipe,
) -> tuple[list[Finding], Sequence[Shard], PoolReport | None]:
    """Findings on the pool, its shards and a report on a few; no shards if unreadable."""
    try:
        begin = time.monotonic()
        listing = list_pool(recipe.pool)
        shards = listing.shards
        listing_s = time.monotonic() - begin
        report = inspect_pool(recipe.pool, shards=SHARDS, listed=listing)
    except (InputError, StorageError) as error:
        return [change("pool", str(error))], (), None
    findings = [
        _listing_finding(recipe, shards, listing_s),
        *(Finding("pool", note) for note in listing_notes(listing)),
        _sample_finding(recipe, report),
    ]
    if "caption_chars" in report.quantiles:
        findings += _text_findings(recipe, report)
    return findings, shards, report


def _listing_finding(recipe: Recipe, shards: Sequence[Shard], listing_s: float) -> Finding:
    total = sum(shard.size_bytes for shard in shards)
    text = f"{len(shards):,} shards, {size(total)}, listed in {listing_s:.1f} s"
    return listing_finding("pool", text, shards, execution_limit(recipe))


def _sample_finding(recipe: Recipe, report: PoolReport) -> Finding:
    seen, readable = report.samples_seen, report.statuses.get("readable", 0)
    forms = _count_text(Counter(report.formats))
    text = (
        f"{report.shards_inspected} shards inspected ({forms}): {seen:,} samples, {readable:,} "
        "readable"
    )
    if seen:
        text += f"; about {report.samples_estimated:,} in the pool"
    broken = {name: count for name, count in report.statuses.items() if name != "readable"}
    failed = sum(broken.values())
    if any(broken.values()):
        text += f"; {failed / seen:.1%} failed: {_count_text(Counter(broken))}"
    if report.shard_faults:
        name, what = next(iter(report.shard_faults.items()))
        text += f"; {len(report.shard_faults)} bad shards, e.g. {name}: {what}"
    limits = recipe.execution
    if failed > limits.max_failed_fraction * seen:
        return change(
            "samples",
            f"{text}. execution.max_failed_fraction = {limits.max_failed_fraction:.0%} would stop "
            "the run. Fix the pool or the columns that [pool] names, or raise the limit",
        )
    if len(report.shard_faults) > limits.max_bad_shard_fraction * report.shards_inspected:
        return change(
            "samples",
            f"{text}. execution.max_bad_shard_fraction = {limits.max_bad_shard_fraction:.0%} would "
            "stop the run. Restore or exclude these shards, or raise the limit",
        )
    return Finding("samples", text)


def _text_findings(recipe: Recipe, report: PoolReport) -> Iterator[Finding]:
    chars = report.quantiles["caption_chars"]
    text = (
        f"{chars['p5']:,.0f} to {chars['p95']:,.0f} characters (5th to 95th percentile), median "
        f"{chars['p50']:,.0f}"
    )
    if chars["p50"] > CLIP_CAPTION_CHARS:
        yield change(
            "captions",
            f"{text}: CLIP reads about {CLIP_CAPTION_CHARS}. Check that pool.text_column holds "
            "captions",
        )
    else:
        yield Finding("captions", text)
    readable = report.statuses["readable"]
    derived = report.derived_uids
    form = (
        "stored with the samples"
        if not derived
        else "derived from shard and key"
        if derived == readable
        else f"{derived:,} derived from shard and key, {readable - derived:,} stored with the "
        "samples"
    )
    text = f"{form}; {report.duplicate_uids:,} duplicates among {report.samples_seen:,}"
    mixed = 0 < derived < readable
    if mixed and recipe.pool.uid == "auto":
        yield change(
            "uids",
            f'{text}: uid lists would contain both kinds. Set pool.uid = "derive" to derive all of '
            "them",
        )
    else:
        yield Finding("uids", text)


def _count_text(counts: Counter[str]) -> str:
    return ", ".join(
        f"{count:,} {name.replace('_', ' ')}" for name, count in counts.most_common() if count
    )
