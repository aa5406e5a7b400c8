"""What every node of a cluster says of itself, and what of that should change.

A node is asked by a task that is bound to it. The task needs no torch, so that it starts in a second.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray._private import worker
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dfn_ray.config import Recipe
from dfn_ray.doctor.rights import try_rights
from dfn_ray.dry_run.finding import Finding, change
from dfn_ray.errors import StorageError, last_line
from dfn_ray.preparing.embedding_fingerprint import with_fixed_threads
from dfn_ray.run import abbreviated, versions
from dfn_ray.storage import Store, open_uri

ANSWER_S = 120.0
"""Nodes that have not answered by then are named; a worker with its imports starts in 2 to 10 s."""
LEAST_OPEN_FILES = 8192
"""What ray.init asks for (ray/_private/worker.py); every actor and connection takes some."""
MOST_SKEW_S = 300.0
"""S3 and others refuse signatures made 15 min off; a third of that leaves time to drift."""
_OWN = ("memory", "object_store_memory")
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
        """Its type by what it offers, as `16 CPU, 1 GPU`: nodes of one type are set up alike."""
        offered = {
            name: amount
            for name, amount in sorted(self.resources.items())
            if name not in _OWN and not name.startswith("node:")
        }
        return ", ".join(f"{amount:g} {name}" for name, amount in offered.items()) or "nothing"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a node says of itself."""

    node: Node
    versions: Mapping[str, str]
    cpus: int
    """That a process there may use."""
    open_files: int
    """Soft limit of a worker."""
    skew_s: float
    """Least that its clock must be off the driver's, by when it was asked and had answered."""
    shm_bytes: int
    """Size of /dev/shm; 0 where there is none."""
    disk_bytes: int
    """Size of the disk that Ray spills to."""
    disk_free_bytes: int
    rights: tuple[str, ...] | None
    """What of write, list, read, delete fails below run_uri; None where another node of its type was asked."""
    sees_probe: bool | None
    """Whether a file that the driver wrote below run_uri is there; None when it wrote none."""
    pool: str | None
    """Why a shard cannot be read; None when it can."""


def alive_nodes() -> list[Node]:
    """All nodes that are alive, the driver's among them."""
    return [
        Node(
            id=node["NodeID"],
            host=node["NodeManagerHostname"],
            resources=node["Resources"],
            labels=node.get("Labels", {}),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def on_node(
    node: Node, function: Callable[..., T], *arguments: Any, **asked: Any
) -> ray.ObjectRef[T]:
    """Start `function` on just this node, with what it asks for there."""
    bound = NodeAffinitySchedulingStrategy(node.id, soft=False)
    task = ray.remote(max_retries=0, **{"num_cpus": 0, **asked})(function)
    return task.options(scheduling_strategy=bound).remote(*arguments)


def answer(ref: ray.ObjectRef[T], timeout_s: float) -> T | str:
    """What a task gave, or the sentence that says why not."""
    try:
        return ray.get(ref, timeout=timeout_s)
    except GetTimeoutError:
        return "no answer in time"
    except RayError as error:
        return last_line(error)


def ask_nodes(
    nodes: Sequence[Node], run_uri: str, probe: str | None, shard_uri: str | None
) -> tuple[list[Facts], dict[str, str]]:
    """The facts of all nodes, and why by host where a node gave none.

    Rights are tried on one node of each type; every node looks for the driver's probe and reads a little of a shard.
    """
    first_of = {node.kind: node.id for node in reversed(nodes)}
    begin = time.time()
    asked = {
        node.id: on_node(node, look, run_uri, probe, shard_uri, first_of[node.kind] == node.id)
        for node in nodes
    }
    facts: list[Facts] = []
    silent: dict[str, str] = {}
    for node in nodes:
        found = answer(asked[node.id], max(1.0, begin + ANSWER_S - time.time()))
        if isinstance(found, str):
            silent[node.host] = found
            continue
        now = found.pop("time_s")
        skew_s = max(0.0, begin - now, now - time.time())
        facts.append(Facts(node=node, skew_s=skew_s, **found))
    return facts, silent


def look(run_uri: str, probe: str | None, shard_uri: str | None, rights: bool) -> dict[str, Any]:
    """The facts of the node that this runs on, and the time there."""
    disk = shutil.disk_usage(_session_folder())
    return {
        "time_s": time.time(),
        "versions": versions(),
        "cpus": len(os.sched_getaffinity(0)),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "shm_bytes": shutil.disk_usage("/dev/shm").total if os.path.isdir("/dev/shm") else 0,
        "disk_bytes": disk.total,
        "disk_free_bytes": disk.free,
        "sees_probe": None if probe is None else _sees(run_uri, probe),
        "rights": try_rights(run_uri) if rights else None,
        "pool": None if shard_uri is None else _unreadable(shard_uri),
    }


def node_findings(recipe: Recipe, facts: Sequence[Facts], *, tries_pool: bool) -> Iterator[Finding]:
    """What there is to say of versions, CPUs, clocks, limits, rights, shared storage and, if tried, the pool."""
    kinds = Counter(fact.node.kind for fact in facts)
    counted = "; ".join(f"{count} x {kind}" for kind, count in kinds.items())
    yield Finding("nodes", f"{len(facts)}: {counted}")
    yield version_finding(facts)
    yield thread_finding(recipe, facts)
    yield from _rights_findings(recipe, facts)
    yield shared_finding(recipe, facts)
    if tries_pool:
        yield _all_nodes(
            "pool on nodes",
            "a shard can be read from every node",
            {fact.node.host: fact.pool for fact in facts if fact.pool},
            "give every node the same credentials and the same view of the pool",
        )
    skew_s = max(fact.skew_s for fact in facts)
    yield _all_nodes(
        "clocks",
        f"within {max(1.0, skew_s):.0f} s of the driver's",
        {
            fact.node.host: f"{fact.skew_s:,.0f} s off the driver's"
            for fact in facts
            if fact.skew_s > MOST_SKEW_S
        },
        "object stores refuse signatures that are 15 min off: run a time service",
    )
    least = min(fact.open_files for fact in facts)
    yield _all_nodes(
        "open files",
        f"{least:,} or more on every node",
        {
            fact.node.host: f"limit is {fact.open_files:,}"
            for fact in facts
            if fact.open_files < LEAST_OPEN_FILES
        },
        f"set `ulimit -n 65536` before `ray start`; Ray asks for at least {LEAST_OPEN_FILES:,}",
    )


def version_finding(facts: Sequence[Facts]) -> Finding:
    """Whether all nodes run what the driver runs."""
    own = versions()
    differing: dict[str, str] = {}
    for fact in facts:
        others = [
            f"{name} {fact.versions.get(name, 'absent')} (driver {own.get(name, 'absent')})"
            for name in sorted({*own, *fact.versions})
            if fact.versions.get(name) != own.get(name)
        ]
        if others:
            differing[fact.node.host] = ", ".join(others)
    shown = ", ".join(
        f"{name} {own[name]}"
        for name in ("python", "ray", "torch", "open_clip_torch", "pyarrow", "dfn_ray")
        if name in own
    )
    return _all_nodes(
        "versions",
        f"the same on every node: {shown}",
        differing,
        "install the same everywhere, best by one image: scores depend on torch and Pillow",
    )


def thread_finding(recipe: Recipe, facts: Sequence[Facts]) -> Finding:
    """Whether the threads of a scorer are what its nodes have."""
    scorers = with_fixed_threads(recipe.scorers)
    cpus = sorted({fact.cpus for fact in facts})
    text = f"nodes have {', '.join(map(str, cpus))} CPUs"
    if scorers.device != "cpu" or scorers.threads is None:
        return Finding("threads", f"{text}; scorers are on {scorers.device}")
    settled = "" if recipe.scorers.threads else " (this machine's; scorers.threads sets it)"
    text += f", a scorer takes {scorers.threads} threads{settled}"
    most = max(cpus)
    if scorers.threads > most:
        return change(
            "threads", f"{text}: no node has as many. Set scorers.threads to {most} or less"
        )
    at_once = scorers.threads * scorers.min_size
    if at_once > sum(fact.cpus for fact in facts):
        return change(
            "threads",
            f"{text}, {scorers.min_size} of them {at_once}: more than there are CPUs. Set scorers.threads = 1, or "
            "scorers.min_size lower",
        )
    return Finding("threads", text)


def shared_finding(recipe: Recipe, facts: Sequence[Facts]) -> Finding:
    """Whether run_uri is one place for all nodes."""
    blind = {
        fact.node.host: "does not see what the driver wrote"
        for fact in facts
        if fact.sees_probe is False
    }
    if Store(recipe.run_uri).is_local:
        one = "a folder that all nodes see" if len(facts) > 1 else "a folder of the only node"
        advice = "a local path is another folder on every node: use object storage, or mount one folder on all of them"
    else:
        one, advice = "one store for all nodes", "is it one endpoint everywhere?"
    if not blind and any(fact.sees_probe is None for fact in facts):
        return change("run_uri", "nothing could be written there from the driver; see rights")
    return _all_nodes("run_uri", f"{recipe.run_uri}: {one}", blind, advice)


def _rights_findings(recipe: Recipe, facts: Sequence[Facts]) -> Iterator[Finding]:
    for fact in facts:
        if fact.rights is None:
            continue
        where = f"from a node of {fact.node.kind}"
        if fact.rights:
            yield change(
                "rights",
                f"{where} ({fact.node.host}): {'; '.join(fact.rights)}. Workers use the credentials of their own node",
            )
        else:
            yield Finding("rights", f"{where}: write, list, read, delete at {recipe.run_uri}")


def _all_nodes(name: str, good: str, bad: Mapping[str, str], advice: str) -> Finding:
    """That all nodes are good, or which are not, one of them in full."""
    if not bad:
        return Finding(name, good)
    host, what = next(iter(bad.items()))
    others = f"; so {abbreviated(sorted(set(bad) - {host}))}" if len(bad) > 1 else ""
    return change(name, f"{host}: {what}{others}. {advice[0].upper()}{advice[1:]}")


def _sees(run_uri: str, probe: str) -> bool:
    try:
        return Store(run_uri).exists(probe)
    except StorageError:
        return False  # said by the rights


def _unreadable(shard_uri: str) -> str | None:
    try:
        with open_uri(shard_uri, in_order=False) as file:
            file.read(512)
    except (StorageError, OSError) as error:
        return last_line(error)
    return None


def _session_folder() -> str:
    """Where this node's Ray keeps its session, and spills to unless told otherwise."""
    node = worker._global_node  # Ray has no public way to it
    return node.get_session_dir_path() if node is not None else "/tmp"
