"""`dfn-ray doctor --reference`: scores against a reference, and the cause of a gap."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dfn_ray.config import Network, Recipe
from dfn_ray.dry_run.finding import Finding, change
from dfn_ray.errors import InputError, NotReadyError
from dfn_ray.network.open_clip_config import allows_quick_gelu
from dfn_ray.network.packed import PackedNetwork
from dfn_ray.parity.matched_samples import MatchedSamples, matched_samples
from dfn_ray.parity.reference import Reference, read_reference
from dfn_ray.parity.suspects import SCREENED, SCREENED_BY_PAIRS, Search, Trial, suspects_of
from dfn_ray.parity.variant import recipe_variant
from dfn_ray.parity.variant_scores import VariantScorer
from dfn_ray.resolving.fetch_networks import fetch_network

SAMPLES = 256
"""Default of --samples. A fault that affects 2 % of samples (such as truncated images) is among
them in 99 of 100 cases."""


def check_parity(
    recipe: Recipe,
    reference_uri: str,
    *,
    samples: int = SAMPLES,
    column: str | None = None,
    report: Callable[[Finding], None],
) -> None:
    """Compares up to `samples` scores of the deciding network with a file, by uid.

    Raises NotReadyError when they differ by more than the precision of either, InputError when
    file, pool and network do not match, StorageError when a store fails.
    """
    if samples < 1:
        raise InputError(f"--samples: need a number of samples >= 1, got {samples}")
    section, spec = _deciding_network(recipe)
    network = fetch_network(spec)
    reference = read_reference(
        reference_uri, column, model_cfg=network.model_cfg, network=spec.name
    )
    matched = matched_samples(recipe.pool, reference, samples)
    for finding in _reference_findings(reference, matched, samples):
        report(finding)
    device = recipe.scorers.device
    if device == "cuda" and not torch.cuda.is_available():
        device = "cpu"
        report(Finding("device", "cpu, because this machine has no CUDA device"))
    search = _search(recipe, network, reference, matched, device)
    before = search.before
    if not before.samples and not before.one_sided:
        raise InputError(
            f"{reference_uri}: contains no score for any of the {len(matched.uids)} samples"
        )
    if before.agrees:
        report(Finding("parity", f"{before}, within what precision explains ({before.floor:.2g})"))
        return
    text = (
        f"{before}; {before.beyond:,} samples differ by more than precision explains (at most "
        f"{before.floor:.2g})"
    )
    report(change("parity", text))
    report(_suspect_finding(search, network, recipe, section, report))
    raise NotReadyError(
        f"the scores of {spec.name} differ from those of {reference_uri}: {before.beyond:,} "
        f"samples by more than {before.floor:.2g}"
    )


def _search(
    recipe: Recipe,
    network: PackedNetwork,
    reference: Reference,
    matched: MatchedSamples,
    device: str,
) -> Search:
    scoring = VariantScorer(
        network,
        matched.captions,
        matched.images,
        recipe=recipe,
        device=device,
    )
    base = recipe_variant(network, recipe.decode)
    return Search(scoring, base, matched.reference_N, is_half=reference.is_half)


def _suspect_finding(
    search: Search,
    network: PackedNetwork,
    recipe: Recipe,
    section: str,
    report: Callable[[Finding], None],
) -> Finding:
    """Finding that names the suspect or the pair that closes the gap, or the closest suspect."""
    suspects = suspects_of(
        recipe_variant(network, recipe.decode),
        section,
        has_both_activations=allows_quick_gelu(network.model_cfg),
    )
    differing = "samples that differ most"
    report(Finding("suspects", f"trying {len(suspects)} settings on the {SCREENED} {differing}"))
    found, closest = search.best_single(suspects)
    if found is None:
        pairs = len(search.pairs(suspects))
        text = (
            f"no single setting explains the difference; trying {pairs} pairs on the "
            f"{SCREENED_BY_PAIRS} {differing}"
        )
        report(Finding("suspects", text))
        found = search.best_pair(suspects)
    if found is None:
        return change(
            "suspects",
            f"no setting or pair of settings explains the difference; {closest} comes closest, on "
            f"the {differing}: {closest.after}. Check that weights, tokenizer, images and captions "
            "are those of the reference",
        )
    return change("suspects", _gap_text(found, search))


def _gap_text(found: Trial, search: Search) -> str:
    before, after = search.before, found.after
    closes = "closes" if len(found.suspects) == 1 else "close"
    text = (
        f"{found} {closes} the gap: largest difference {before.largest:.2g} -> "
        f"{after.largest:.2g}, mean {before.mean:.2g} -> {after.mean:.2g}, rank correlation "
        f"{before.rank_correlation:.4f} -> {after.rank_correlation:.4f}"
    )
    if before.one_sided:
        text += (
            f", samples with a score on one side only {before.one_sided:,} -> {after.one_sided:,}"
        )
    return text


def _reference_findings(
    reference: Reference, matched: MatchedSamples, samples: int
) -> list[Finding]:
    kind = "float16" if reference.is_half else "float32 or finer"
    text = (
        f"{len(matched.uids):,} of up to {samples:,} samples are in {reference.uri}, column "
        f"{reference.column} ({kind}); {matched.read:,} samples of the pool were read, "
        f"{matched.unreadable:,} of them unreadable"
    )
    findings = [Finding("reference", text)]
    if reference.ambiguous:
        findings.append(
            Finding("reference", f"{reference.ambiguous:,} uids ignored: they have several scores")
        )
    return findings


def _deciding_network(recipe: Recipe) -> tuple[str, Network]:
    """The section and the spec of the network whose score decides."""
    name = recipe.deciding_network
    for number, spec in enumerate(recipe.require_networks()):
        if spec.name == name:
            return f"networks.{number}", spec
    raise InputError(f"select.network: no network is named {name}")
