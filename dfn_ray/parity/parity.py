"""`dfn-ray doctor --reference`: scores of some samples against published or golden ones, and what makes them differ."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dfn_ray.config import Network, Recipe
from dfn_ray.dry_run.finding import Finding, change
from dfn_ray.errors import InputError, NotReadyError
from dfn_ray.network.frozen import FrozenNetwork
from dfn_ray.parity.matched_samples import Matched, matched_samples
from dfn_ray.parity.reference import Reference, read_reference
from dfn_ray.parity.suspects import SCREENED, SCREENED_BY_PAIRS, Search, Trial, suspects_of
from dfn_ray.parity.variant import as_the_recipe_says
from dfn_ray.parity.variant_scores import Scoring
from dfn_ray.preparing.fetch_networks import load_network_of

SAMPLES = 256
"""Scored unless asked otherwise. Of a fault that shows in 2 % of samples (images that end early, say) they have one in 99 of
100 cases."""


def check_parity(
    recipe: Recipe,
    reference_uri: str,
    *,
    samples: int = SAMPLES,
    column: str | None = None,
    report: Callable[[Finding], None],
) -> None:
    """Compare up to `samples` scores of the recipe's deciding network with those of a file, by uid, and report every finding.

    Raises NotReadyError when they differ beyond the precision of either; InputError when file, pool and network do not go
    together, StorageError when a store fails.
    """
    if samples < 1:
        raise InputError(f"--samples: need a number of samples >= 1, got {samples}")
    section, spec = _deciding(recipe)
    network = load_network_of(spec)
    reference = read_reference(
        reference_uri, column, model_cfg=network.model_cfg, network=spec.name
    )
    matched = matched_samples(recipe.pool, reference, samples)
    for finding in _about(reference, matched, samples):
        report(finding)
    device = recipe.scorers.device
    if device == "cuda" and not torch.cuda.is_available():
        device = "cpu"
        report(Finding("device", "cpu, as this machine has no CUDA device"))
    search = _search(recipe, network, reference, matched, device)
    before = search.before
    if not before.samples and not before.one_sided:
        raise InputError(
            f"{reference_uri}: has no score for any of the {len(matched.uids)} samples"
        )
    if before.agrees:
        report(Finding("parity", f"{before}; the floor of precision is {before.floor:.2g}"))
        return
    text = f"{before}; {before.beyond:,} samples differ beyond the floor of precision, at most {before.floor:.2g}"
    report(change("parity", text))
    report(_verdict(search, network, recipe, section, report))
    raise NotReadyError(f"the scores of {spec.name} are not those of {reference_uri}")


def _search(
    recipe: Recipe, network: FrozenNetwork, reference: Reference, matched: Matched, device: str
) -> Search:
    scoring = Scoring(
        network,
        matched.captions,
        matched.images,
        recipe=recipe,
        device=device,
    )
    base = as_the_recipe_says(network, recipe.decode)
    return Search(scoring, base, matched.reference_N, is_half=reference.is_half)


def _verdict(
    search: Search,
    network: FrozenNetwork,
    recipe: Recipe,
    section: str,
    report: Callable[[Finding], None],
) -> Finding:
    """The suspect or the pair that closes the gap, as what to change, or that there is none."""
    suspects = suspects_of(as_the_recipe_says(network, recipe.decode), section)
    differing = "samples that differ most"
    report(Finding("suspects", f"trying {len(suspects)} on the {SCREENED} {differing}"))
    found, closest = search.closing(suspects)
    if found is None:
        pairs = len(search.pairs(suspects))
        text = f"none alone; trying {pairs} pairs on the {SCREENED_BY_PAIRS} {differing}"
        report(Finding("suspects", text))
        found = search.closing_pair(suspects)
    if found is None:
        return change(
            "suspects",
            f"none of them and no pair closes the gap; {closest} comes closest, on the {differing}: "
            f"{closest.after}. Other weights, another tokenizer, or other images and captions than the reference's?",
        )
    return change("suspects", _closes(found, search))


def _closes(found: Trial, search: Search) -> str:
    before, after = search.before, found.after
    closes = "closes" if len(found.suspects) == 1 else "close"
    text = (
        f"{found} {closes} the gap: largest difference {before.largest:.2g} -> {after.largest:.2g}, "
        f"mean {before.mean:.2g} -> {after.mean:.2g}, "
        f"rank correlation {before.rank_correlation:.4f} -> {after.rank_correlation:.4f}"
    )
    if before.one_sided:
        text += f", with a score on one side only {before.one_sided:,} -> {after.one_sided:,}"
    return text


def _about(reference: Reference, matched: Matched, samples: int) -> list[Finding]:
    kind = "float16" if reference.is_half else "float32 or finer"
    text = (
        f"{len(matched.uids):,} of up to {samples:,} samples are in {reference.uri}, column {reference.column} ({kind}); "
        f"{matched.read:,} of the pool looked at, {matched.unreadable:,} of them unreadable"
    )
    findings = [Finding("reference", text)]
    if reference.doubtful:
        findings.append(
            Finding("reference", f"{reference.doubtful:,} uids left out: they have several scores")
        )
    return findings


def _deciding(recipe: Recipe) -> tuple[str, Network]:
    """The network whose score selects, and its section."""
    name = recipe.deciding_network
    for number, spec in enumerate(recipe.require_networks()):
        if spec.name == name:
            return f"networks.{number}", spec
    raise InputError(f"select.network: no network is called {name}")
