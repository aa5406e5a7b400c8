"""The alive nodes of a cluster, their resources, and tasks on a certain one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dfn_ray.errors import last_line
from dfn_ray.on_ray.answers import answer_of_head

_RAYS_RESOURCES = ("memory", "object_store_memory")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Node:
    """An alive node as the cluster lists it."""

    id: str
    host: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]

    @property
    def kind(self) -> str:
        """Its type, by its resources: `16 CPU, 1 GPU`; nodes of a type are taken to be alike."""
        offered = {
            name: amount
            for name, amount in sorted(self.resources.items())
            if name not in _RAYS_RESOURCES and not name.startswith("node:")
        }
        return ", ".join(f"{amount:g} {name}" for name, amount in offered.items()) or "nothing"


def alive_nodes() -> list[Node]:
    """All nodes that are alive, including the driver's."""
    return [
        Node(
            id=node["NodeID"],
            host=node["NodeManagerHostname"],
            resources=node["Resources"],
            labels=node.get("Labels") or {},
        )
        for node in answer_of_head(ray.nodes)
        if node["Alive"]
    ]


def cluster_resources() -> Mapping[str, float]:
    """The resources of all alive nodes together, by name."""
    return answer_of_head(ray.cluster_resources)


def run_on_node(
    node: Node, function: Callable[..., T], *arguments: Any, **options: Any
) -> ray.ObjectRef[T]:
    """Starts `function` as a task on exactly this node, with these options of `ray.remote`."""
    bound = NodeAffinitySchedulingStrategy(node.id, soft=False)
    task = ray.remote(max_retries=0, **{"num_cpus": 0, **options})(function)
    return task.options(scheduling_strategy=bound).remote(*arguments)


def result_or_error(ref: ray.ObjectRef[T], timeout_s: float) -> T | str:
    """The result of a task, or the reason why there is none."""
    try:
        return ray.get(ref, timeout=timeout_s)
    except GetTimeoutError:
        return "did not respond in time"
    except RayError as error:
        return last_line(error)
