"""`dfn-ray doctor`: all checks of a recipe and of the cluster that will run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ray.exceptions import RayError

from dfn_ray.config import Recipe
from dfn_ray.doctor.network_check import network_findings, run_finding
from dfn_ray.doctor.node_facts import node_findings, query_nodes
from dfn_ray.doctor.object_store import in_flight, memory_findings
from dfn_ray.doctor.one_batch import device_findings
from dfn_ray.doctor.permissions import check_permissions, probing
from dfn_ray.doctor.placement import addable_node_types, placement_findings
from dfn_ray.doctor.pool_check import pool_findings
from dfn_ray.dry_run.finding import Finding, change
from dfn_ray.dry_run.recipes import AnyRecipe, recipe_findings
from dfn_ray.errors import InputError, NotReadyError, last_line
from dfn_ray.network.packed import PackedNetwork
from dfn_ray.on_ray.nodes import alive_nodes
from dfn_ray.on_ray.session import connect
from dfn_ray.pool import PoolReport, Shard


def doctor(recipe: AnyRecipe, *, report: Callable[[Finding], None]) -> None:
    """Reports every finding. Raises NotReadyError at the end if something has to change.

    The cluster is checked for filtering recipes only. For other recipes, everything that they name
    is checked, and the permissions at run_uri.
    """
    wrong = 0
    findings = examine(recipe) if isinstance(recipe, Recipe) else _examine_without_cluster(recipe)
    for finding in findings:
        report(finding)
        wrong += not finding.ok
    if wrong:
        raise NotReadyError(
            f"{wrong} thing{'s' if wrong > 1 else ''} to change before this recipe can run"
        )


def examine(recipe: Recipe) -> Iterator[Finding]:
    """Yields every finding as soon as it is known, those that need no cluster first.

    Bad findings do not end the checks.
    """
    found, shards, report = pool_findings(recipe)
    yield from found
    found, networks = network_findings(recipe)
    yield from found
    yield run_finding(recipe, shards, networks)
    try:
        connect()
    except (ConnectionError, InputError, RayError) as error:
        yield change("cluster", f"cannot be reached: {last_line(error)}. Check RAY_ADDRESS")
        return
    yield from _examine_cluster(recipe, shards, report, networks)


def _examine_without_cluster(recipe: AnyRecipe) -> Iterator[Finding]:
    yield from recipe_findings("doctor", recipe)
    yield _permissions(recipe.run_uri, check_permissions(recipe.run_uri))


def _permissions(run_uri: str, problems: Sequence[str]) -> Finding:
    if problems:
        return change("permissions", f"from the driver: {'; '.join(problems)}")
    return Finding("permissions", f"from the driver: can write, list, read and delete at {run_uri}")


def _examine_cluster(
    recipe: Recipe,
    shards: Sequence[Shard],
    report: PoolReport | None,
    networks: Sequence[PackedNetwork],
) -> Iterator[Finding]:
    nodes = alive_nodes()
    shard = next((shard.opened_at for shard in shards if shard.fault is None), None)
    if recipe.pool.format == "folder":
        shard = None  # a folder cannot be opened as a file
    with probing(recipe.run_uri) as probe:
        facts, failures = query_nodes(
            nodes, recipe.run_uri, None if probe.problems else probe.name, shard
        )
    yield _permissions(recipe.run_uri, probe.problems)
    for host, why in failures.items():
        yield change("nodes", f"{host} cannot run a task of dfn_ray: {why}")
    if facts:
        yield from node_findings(recipe, facts, tries_pool=shard is not None)
    yield from placement_findings(recipe, nodes, addable_node_types())
    if networks and facts:
        if report is not None:
            yield from memory_findings(recipe, in_flight(recipe, networks, report), facts)
        yield from device_findings(recipe, networks, nodes)
