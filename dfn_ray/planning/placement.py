"""Whether nodes have, or an autoscaler can add, what the recipe asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from ray._private import state

from dfn_ray.config import Recipe
from dfn_ray.flow.capacity import scorers_needed
from dfn_ray.planning.finding import Finding, change
from dfn_ray.planning.nodes import Node

_SLACK = 1e-6
"""Of sums of fractions, as 0.1 + 0.2."""


@dataclass(frozen=True)
class Bundle:
    """What one task or actor asks of its node."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        asked = [f"{amount:g} {name}" for name, amount in self.resources.items() if amount]
        asked += [f"label {name} = {value}" for name, value in self.labels.items()]
        return ", ".join(asked) or "nothing"

    def reserved(self) -> dict[str, Any]:
        """The bundle as arguments of `ray.remote`."""
        amounts = {name: amount for name, amount in self.resources.items() if amount}
        cpus, gpus = amounts.pop("CPU", 0), amounts.pop("GPU", 0)
        return {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "resources": amounts,
            "label_selector": dict(self.labels),
        }

    def on(self, resources: Mapping[str, float], labels: Mapping[str, str]) -> float:
        """How many fit on a node side by side; infinitely many of those that ask for nothing."""
        if any(labels.get(name) != value for name, value in self.labels.items()):
            return 0
        return min(
            (
                (resources.get(name, 0.0) + _SLACK) // amount
                for name, amount in self.resources.items()
                if amount
            ),
            default=inf,
        )


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


def bundles(recipe: Recipe) -> tuple[Bundle, Bundle]:
    """What a decode task and what a scorer asks for."""
    decode, scorers = recipe.decode, scorers_needed(recipe.scorers)
    return (
        Bundle({"CPU": decode.cpus, **decode.resources}, decode.labels),
        Bundle(scorers.each, scorers.labels),
    )


def placement_findings(
    recipe: Recipe, nodes: Sequence[Node], more: Sequence[NodeType]
) -> Iterator[Finding]:
    """Whether decode tasks and scorers find their place, now or once nodes are added."""
    decode, scorer = bundles(recipe)
    yield place("decode tasks", decode, nodes, more)
    scorers = recipe.scorers
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
    now = sum(bundle.on(node.resources, node.labels) for node in nodes)
    later = max(now, sum(bundle.on(kind.resources, kind.labels) * kind.most for kind in more))
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
