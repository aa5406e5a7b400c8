"""Checks that a recipe's networks load, and that its run can start or resume."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dfn_ray.config import Recipe
from dfn_ray.console.tables import size
from dfn_ray.dry_run.finding import Finding, change
from dfn_ray.errors import DfnRayError, InputError, StorageError
from dfn_ray.filtering.preflight import refuse_before
from dfn_ray.filtering.scoring.fingerprint import scoring_fingerprint
from dfn_ray.network.packed import PackedNetwork
from dfn_ray.pool import Shard
from dfn_ray.resolving.fetch_networks import fetch_network
from dfn_ray.run import RUN, fingerprint_digest
from dfn_ray.storage import Store

SHORT = 12
"""Hex digits of a digest in printed text."""


def network_findings(recipe: Recipe) -> tuple[list[Finding], tuple[PackedNetwork, ...]]:
    """A finding for each network, and the networks if all of them load, else none."""
    findings: list[Finding] = []
    loaded: list[PackedNetwork] = []
    for spec in recipe.require_networks():
        name = f"network {spec.name}"
        begin = time.monotonic()
        try:
            network = fetch_network(spec)
        except (InputError, StorageError) as error:
            findings.append(change(name, str(error)))
            continue
        loaded.append(network)
        weights = sum(array.nbytes for array in network.state.values())
        height, width = network.transform.size
        findings.append(
            Finding(
                name,
                f"{spec.model}, {size(weights)} in float32, {width}x{height} pixels, weights "
                f"{network.weights_sha256[:SHORT]}, loaded in {time.monotonic() - begin:.1f} s",
            )
        )
    return findings, tuple(loaded) if len(loaded) == len(recipe.networks) else ()


def run_finding(
    recipe: Recipe, shards: Sequence[Shard], networks: Sequence[PackedNetwork]
) -> Finding:
    """Finding on whether the run at run_uri starts, resumes, or is refused."""
    fingerprints = {network.name: network.fingerprint() for network in networks}
    digest = fingerprint_digest(scoring_fingerprint(recipe, fingerprints))
    try:
        refuse_before("filter", recipe, shards, None)
        exists = Store(recipe.run_uri).exists(RUN)
    except DfnRayError as error:
        return change("run", str(error))
    begun = "would be resumed" if exists else "new"
    return Finding("run", f"{recipe.run_uri}, {begun}; fingerprint {digest[:SHORT]}")
