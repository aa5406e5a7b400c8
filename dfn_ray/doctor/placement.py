"""Checks that alive nodes, or nodes an autoscaler can add, meet the recipe's requirements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from ray._private import state

from dfn_ray.config import Recipe
from dfn_ray.dry_run.finding import Finding, change
from dfn_ray.on_ray.bundles import Bundle, decode_bundle, scorer_bundle
from dfn_ray.on_ray.nodes import Node


@dataclass(frozen=True)
class NodeType:
    """A type of node that an autoscaler may add."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]
    max_count: float
    """Upper bound on such nodes at once, alive ones included; infinity without a bound."""


def addable_node_types() -> list[NodeType]:
    """The node types of the cluster's autoscaler; empty without one.

    KubeRay's autoscaler and that of `ray up` (v2) report them.
    """
    config: Any = state.state.get_cluster_config()  # Ray has no public API for it
    if config is None:
        return []
    return [
        NodeType(
            dict(group.resources),
            dict(getattr(group, "labels", {})),
            inf if group.max_count < 0 else group.max_count,
        )
        for group in config.node_group_configs
    ]


def placement_findings(
    recipe: Recipe, nodes: Sequence[Node], more: Sequence[NodeType]
) -> Iterator[Finding]:
    """Yields findings on whether decode tasks and scorers fit, now or once nodes are added."""
    yield placement_finding("decode tasks", decode_bundle(recipe.decode), nodes, more)
    scorers, scorer = recipe.scorers, scorer_bundle(recipe.scorers)
    yield placement_finding(
        "scorers", scorer, nodes, more, least=scorers.min_size, most=scorers.max_size
    )
    cpus = sum(node.resources.get("CPU", 0.0) for node in nodes)
    reserved = scorers.cpus * scorers.min_size
    if recipe.decode.placement == "apart" and not more and cpus - reserved < recipe.decode.cpus:
        yield change(
            "scorers",
            f"{scorers.min_size} scorers at scorers.cpus = {scorers.cpus:g} reserve {reserved:g} "
            f"of {cpus:g} CPUs, so that no decode task can start. Set scorers.cpus = 0, or lower "
            "scorers.min_size",
        )


def placement_finding(
    name: str,
    bundle: Bundle,
    nodes: Sequence[Node],
    more: Sequence[NodeType],
    *,
    least: int = 1,
    most: int | None = None,
) -> Finding:
    """Finding on whether `least` bundles fit, now or on added nodes, and how many of `most`."""
    now = sum(bundle.room_on(node.resources, node.labels) for node in nodes)
    later = max(
        now, sum(bundle.room_on(kind.resources, kind.labels) * kind.max_count for kind in more)
    )
    need = f"each needs {bundle}"
    if later == 0:
        adds = "and none that the autoscaler can add" if more else "and there is no autoscaler"
        return change(
            name,
            f"{need}: no node has that, {adds}, so they would wait forever. Lower what they "
            "reserve, or add such nodes",
        )
    if later < least:
        return change(
            name,
            f"{need}: {later:g} fit, but the recipe starts with {least}. Lower scorers.min_size, "
            "or add nodes",
        )
    if now == inf:
        return Finding(name, "reserve nothing and fit on any node")
    text = f"{need}: {now:g} fit now"
    if later > now:
        text += (
            ", any number once nodes are added"
            if later == inf
            else f", {later:g} once nodes are added"
        )
    if most is not None and later < most:
        return change(
            name,
            f"{text}; the recipe's max_size = {most} can never be reached. Lower it, or add nodes",
        )
    if now < least:
        text += f"; the recipe starts with {least} and waits for nodes"
    return Finding(name, text)
