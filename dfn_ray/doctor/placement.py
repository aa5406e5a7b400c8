"""Whether nodes have, or an autoscaler can add, what the recipe asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from ray._private import state

from dfn_ray.config import Recipe
from dfn_ray.doctor.nodes import Node
from dfn_ray.dry_run.finding import Finding, change
from dfn_ray.on_ray.bundles import Bundle, decode_bundle, scorer_bundle


@dataclass(frozen=True)
class NodeType:
    """Nodes that an autoscaler may add."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]
    most: float
    """Of them at once, those that are alive among them."""


def addable() -> list[NodeType]:
    """The node types of the cluster's autoscaler; none without one. KubeRay's and `ray up`'s (v2) tell them."""
    config: Any = state.state.get_cluster_config()  # Ray has no public way to it
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
    """Whether decode tasks and scorers find their place, now or once nodes are added."""
    yield place("decode tasks", decode_bundle(recipe.decode), nodes, more)
    scorers, scorer = recipe.scorers, scorer_bundle(recipe.scorers)
    yield place("scorers", scorer, nodes, more, least=scorers.min_size, most=scorers.max_size)
    cpus = sum(node.resources.get("CPU", 0.0) for node in nodes)
    reserved = scorers.cpus * scorers.min_size
    if not more and cpus - reserved < recipe.decode.cpus:
        yield change(
            "scorers",
            f"{scorers.min_size} scorers at scorers.cpus = {scorers.cpus:g} reserve {reserved:g} of {cpus:g} CPUs: no "
            "decode task could ever start. Set scorers.cpus = 0, or fewer scorers",
        )


def place(
    name: str,
    bundle: Bundle,
    nodes: Sequence[Node],
    more: Sequence[NodeType],
    *,
    least: int = 1,
    most: int | None = None,
) -> Finding:
    """Whether `least` bundles fit, now or on added nodes, and how many of `most`."""
    now = sum(bundle.room_on(node.resources, node.labels) for node in nodes)
    later = max(now, sum(bundle.room_on(kind.resources, kind.labels) * kind.most for kind in more))
    asked = f"each asks for {bundle}"
    if later == 0:
        adds = (
            "and none that the autoscaler can add has it" if more else "and no autoscaler adds any"
        )
        return change(name, f"{asked}: no node has that, {adds}. They would wait for ever")
    if later < least:
        return change(name, f"{asked}: {later:g} fit, the recipe starts with {least}")
    if now == inf:
        return Finding(name, "reserve nothing, so that they find their place on any node")
    text = f"{asked}: {now:g} fit now"
    if later > now:
        text += (
            ", any number once nodes are added"
            if later == inf
            else f", {later:g} once nodes are added"
        )
    if most is not None and later < most:
        return change(
            name, f"{text}; the recipe's max_size = {most} is never reached. Lower it, or add nodes"
        )
    if now < least:
        text += f"; the recipe starts with {least} and waits for nodes"
    return Finding(name, text)
