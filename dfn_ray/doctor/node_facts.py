"""Facts about every node of a cluster, and the findings from them.

A task bound to a node collects its facts. It does not import torch, so that it starts within a
second.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray._private import worker

from dfn_ray.config import Recipe
from dfn_ray.doctor.permissions import check_permissions
from dfn_ray.dry_run.finding import Finding, change
from dfn_ray.errors import StorageError, last_line
from dfn_ray.on_ray.nodes import Node, result_or_error, run_on_node
from dfn_ray.resolving.embedding_fingerprint import with_fixed_threads
from dfn_ray.run import abbreviated, versions
from dfn_ray.storage import Store, open_uri

ANSWER_S = 120.0
"""Limit on a node's answer; a worker with its imports starts in 2 to 10 s."""
MIN_OPEN_FILES = 8192
"""The limit that ray.init expects (ray/_private/worker.py); every actor and connection uses
some."""
MAX_SKEW_S = 300.0
"""S3 and others reject signatures that are off by 15 min; a third of that leaves time to drift."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts that a node reports about itself."""

    node: Node
    versions: Mapping[str, str]
    cpus: int
    """CPUs that a process on the node may use."""
    open_files: int
    """Soft limit on open files of a worker."""
    skew_s: float
    """Lower bound on the clock difference to the driver, in seconds: how far the node's time lies
    outside the interval between request and answer."""
    shm_bytes: int
    """Size of /dev/shm; 0 if it does not exist."""
    disk_bytes: int
    """Size of the disk that Ray spills to."""
    disk_free_bytes: int
    denied: tuple[str, ...] | None
    """The operations (write, list, read, delete) that fail below run_uri; None if another node of
    the same type was checked."""
    sees_probe: bool | None
    """True if the node finds the file that the driver wrote below run_uri; None if it wrote
    none."""
    pool: str | None
    """The reason why a shard cannot be read; None if it can."""


def query_nodes(
    nodes: Sequence[Node], run_uri: str, probe: str | None, shard_uri: str | None
) -> tuple[list[Facts], dict[str, str]]:
    """The facts of all nodes, and by host the reason why a node reported none.

    Permissions are checked on one node of each type. Every node looks for the driver's probe and
    reads the start of a shard.
    """
    first_of = {node.kind: node.id for node in reversed(nodes)}
    begin = time.time()
    refs = {
        node.id: run_on_node(
            node, collect_facts, run_uri, probe, shard_uri, first_of[node.kind] == node.id
        )
        for node in nodes
    }
    facts: list[Facts] = []
    failures: dict[str, str] = {}
    for node in nodes:
        found = result_or_error(refs[node.id], max(1.0, begin + ANSWER_S - time.time()))
        if isinstance(found, str):
            failures[node.host] = found
            continue
        now = found.pop("time_s")
        skew_s = max(0.0, begin - now, now - time.time())
        facts.append(Facts(node=node, skew_s=skew_s, **found))
    return facts, failures


def collect_facts(
    run_uri: str, probe: str | None, shard_uri: str | None, permissions: bool
) -> dict[str, Any]:
    """The facts of the node that this runs on, and its time."""
    disk = shutil.disk_usage(_session_folder())
    return {
        "time_s": time.time(),
        "versions": versions(),
        "cpus": len(os.sched_getaffinity(0)),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "shm_bytes": shutil.disk_usage("/dev/shm").total if os.path.isdir("/dev/shm") else 0,
        "disk_bytes": disk.total,
        "disk_free_bytes": disk.free,
        "sees_probe": None if probe is None else _finds_probe(run_uri, probe),
        "denied": check_permissions(run_uri) if permissions else None,
        "pool": None if shard_uri is None else _read_problem(shard_uri),
    }


def node_findings(recipe: Recipe, facts: Sequence[Facts], *, tries_pool: bool) -> Iterator[Finding]:
    """Yields findings on versions, CPUs, clocks, limits, permissions, run_uri and the pool."""
    kinds = Counter(fact.node.kind for fact in facts)
    kind_counts = "; ".join(f"{count} x {kind}" for kind, count in kinds.items())
    yield Finding("nodes", f"{len(facts)}: {kind_counts}")
    yield version_finding(facts)
    yield thread_finding(recipe, facts)
    yield from _permission_findings(recipe, facts)
    yield shared_finding(recipe, facts)
    if tries_pool:
        yield _finding_of_all(
            "pool on nodes",
            "every node can read a shard",
            {fact.node.host: fact.pool for fact in facts if fact.pool},
            "give every node the same credentials and the same mounts",
        )
    skew_s = max(fact.skew_s for fact in facts)
    yield _finding_of_all(
        "clocks",
        f"within {max(1.0, skew_s):.0f} s of the driver's",
        {
            fact.node.host: f"off by {fact.skew_s:,.0f} s from the driver's"
            for fact in facts
            if fact.skew_s > MAX_SKEW_S
        },
        "object stores reject requests signed by a clock that is off by 15 min: synchronize the "
        "clocks (NTP)",
    )
    least = min(fact.open_files for fact in facts)
    yield _finding_of_all(
        "open files",
        f"{least:,} or more on every node",
        {
            fact.node.host: f"limit is {fact.open_files:,}"
            for fact in facts
            if fact.open_files < MIN_OPEN_FILES
        },
        f"run `ulimit -n 65536` before `ray start`; Ray expects at least {MIN_OPEN_FILES:,}",
    )


def version_finding(facts: Sequence[Facts]) -> Finding:
    """Finding on whether all nodes have the driver's package versions."""
    own = versions()
    differing: dict[str, str] = {}
    for fact in facts:
        others = [
            f"{name} {fact.versions.get(name, 'missing')} (driver {own.get(name, 'missing')})"
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
    return _finding_of_all(
        "versions",
        f"the same on every node: {shown}",
        differing,
        "install the same versions on all nodes, preferably with one image: scores depend on torch "
        "and Pillow",
    )


def thread_finding(recipe: Recipe, facts: Sequence[Facts]) -> Finding:
    """Finding on whether the nodes have the CPU threads that scorers use."""
    scorers = with_fixed_threads(recipe.scorers)
    cpus = sorted({fact.cpus for fact in facts})
    text = f"nodes have {', '.join(map(str, cpus))} CPUs"
    if scorers.device != "cpu" or scorers.threads is None:
        return Finding("threads", f"{text}; scorers run on {scorers.device}")
    source = (
        "" if recipe.scorers.threads else " (the CPUs of this machine; scorers.threads changes it)"
    )
    text += f", a scorer uses {scorers.threads} threads{source}"
    most = max(cpus)
    if scorers.threads > most:
        return change(
            "threads", f"{text}: no node has that many. Set scorers.threads to {most} or less"
        )
    at_once = scorers.threads * scorers.min_size
    if at_once > sum(fact.cpus for fact in facts):
        return change(
            "threads",
            f"{text}, and {scorers.min_size} scorers use {at_once}: more than the CPUs of the "
            "cluster. Set scorers.threads = 1, or lower scorers.min_size",
        )
    return Finding("threads", text)


def shared_finding(recipe: Recipe, facts: Sequence[Facts]) -> Finding:
    """Finding on whether run_uri is the same place on all nodes."""
    blind = {
        fact.node.host: "does not find the file that the driver wrote"
        for fact in facts
        if fact.sees_probe is False
    }
    if Store(recipe.run_uri).is_local:
        one = "a folder that all nodes share" if len(facts) > 1 else "a folder on the only node"
        advice = (
            "a local path is a different folder on every node: use object storage, or mount one "
            "folder on all nodes"
        )
    else:
        one, advice = "one store for all nodes", "check that all nodes use the same endpoint"
    if not blind and any(fact.sees_probe is None for fact in facts):
        return change("run_uri", "the driver could not write there; see permissions")
    return _finding_of_all("run_uri", f"{recipe.run_uri}: {one}", blind, advice)


def _permission_findings(recipe: Recipe, facts: Sequence[Facts]) -> Iterator[Finding]:
    for fact in facts:
        if fact.denied is None:
            continue
        where = f"from a node of {fact.node.kind}"
        if fact.denied:
            yield change(
                "permissions",
                f"{where} ({fact.node.host}): {'; '.join(fact.denied)}. Workers use the "
                "credentials of their own node",
            )
        else:
            yield Finding(
                "permissions", f"{where}: can write, list, read and delete at {recipe.run_uri}"
            )


def _finding_of_all(name: str, good: str, bad: Mapping[str, str], advice: str) -> Finding:
    """Finding that all nodes are good, or else the first bad one in full and the others' names."""
    if not bad:
        return Finding(name, good)
    host, what = next(iter(bad.items()))
    others = f"; also {abbreviated(sorted(set(bad) - {host}))}" if len(bad) > 1 else ""
    return change(name, f"{host}: {what}{others}. {advice[0].upper()}{advice[1:]}")


def _finds_probe(run_uri: str, probe: str) -> bool:
    try:
        return Store(run_uri).exists(probe)
    except StorageError:
        return False  # the finding on permissions reports it


def _read_problem(shard_uri: str) -> str | None:
    """The error of reading the start of a shard; None if it can be read."""
    try:
        with open_uri(shard_uri, in_order=False) as file:
            file.read(512)
    except (StorageError, OSError) as error:
        return last_line(error)
    return None


def _session_folder() -> str:
    """The session folder of this node's Ray, to which it spills by default."""
    node = worker._global_node  # Ray has no public API for it
    return node.get_session_dir_path() if node is not None else "/tmp"
