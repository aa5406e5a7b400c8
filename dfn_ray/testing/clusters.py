"""Ray clusters of several local nodes: one that kills and drains nodes, and one that autoscales.

Every node is a `ray start --block` of its own, so that it dies like a machine, with all its
processes at once. Heads offer no CPUs: like those of `cluster/`, they run only the driver. Needs
psutil, of the dev extra.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.core.generated import autoscaler_pb2

from dfn_ray.testing.waiting import until

START_S = 120.0
"""Time limit for the start of a node."""
OBJECT_STORE_BYTES = 100 * 2**20
"""Of each node; Ray's minimum is 75 MiB."""
ROLE = "dfn-role"
"""The label for a node's role: `decode` or `score`, as in the files of `cluster/`."""

_ENVIRONMENT = {
    # A dead node is noticed after 5 s instead of 15 s or more.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_health_check_timeout_ms": "10000",
}
_COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
)
"""Keys of an autoscaling configuration that Ray's loader requires and a provider of processes
ignores."""


@dataclass(frozen=True, kw_only=True)
class NodeType:
    """Resources that a node offers to Ray; none of them need exist."""

    cpus: int = 0
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom resources."""
    max_nodes: int = 1
    """Maximum in an autoscaling cluster."""


DECODE_NODE = NodeType(cpus=2, labels={ROLE: "decode"})
SCORE_NODE = NodeType(gpus=1, labels={ROLE: "score"})


class LocalCluster:
    """A head, and nodes that are added and removed on request."""

    def __init__(self, address: str, head: psutil.Process) -> None:
        self.address = address
        """For `ray.init` and RAY_ADDRESS."""
        self._head = head
        self._nodes: dict[str, psutil.Process] = {}
        self._leaving: set[str] = set()

    def add_nodes(self, nodes: Mapping[str, NodeType]) -> None:
        """Starts nodes and waits until they have joined; this process must be connected."""
        # In sequence: nodes of one machine that start at once may choose the same ports.
        for name, node in nodes.items():
            # The cluster takes seconds to detect that a node of the same name is dead.
            until(
                lambda name=name: name not in alive_nodes(),
                within_s=START_S,
                otherwise=f"an older node {name} did not leave",
            )
            self._nodes[name] = _start(
                self._joining(name, node), there=lambda name=name: name in alive_nodes()
            )

    def kill_node(self, name: str) -> None:
        """Sends SIGKILL to all processes of a node, as if its machine were taken away."""
        self._leaving.discard(name)
        _kill(self._nodes.pop(name))

    def drain_node(self, name: str, *, deadline_s: float) -> None:
        """Announces that a node leaves in `deadline_s`, as clouds do for spot machines."""
        reasons: Any = autoscaler_pb2
        accepted, why = GcsClient(address=self.address).drain_node(
            node_id(name),
            reasons.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "spot machine is taken away",
            int((time.time() + deadline_s) * 1000),
        )
        if not accepted:
            raise RuntimeError(f"the cluster refused to drain {name}: {why}")
        self._leaving.add(name)

    def set_nodes(self, nodes: Mapping[str, NodeType]) -> None:
        """Starts and kills nodes until the cluster has exactly these, none of them draining."""
        for name in [*self._nodes]:
            if name not in nodes or name in self._leaving:
                self.kill_node(name)
        self.add_nodes({name: node for name, node in nodes.items() if name not in self._nodes})

    def close(self) -> None:
        """Ends all remaining processes."""
        for process in [*self._nodes.values(), self._head]:
            _kill(process)

    def _joining(self, name: str, node: NodeType) -> list[str]:
        command = [
            "ray", "start", f"--address={self.address}", "--block", f"--node-name={name}",
            f"--num-cpus={node.cpus}", f"--num-gpus={node.gpus}",
            f"--object-store-memory={OBJECT_STORE_BYTES}", "--include-log-monitor=false",
        ]  # fmt: skip
        if node.resources:
            command.append(f"--resources={json.dumps(dict(node.resources))}")
        if node.labels:
            command.append("--labels=" + ",".join(f"{k}={v}" for k, v in node.labels.items()))
        return command


@contextmanager
def local_cluster() -> Iterator[LocalCluster]:
    """A cluster of a head alone, for the duration of the context."""
    with _temp_dir() as temp:
        port = _free_port()
        head = _start(_head(port, temp), there=lambda: _listens(port))
        cluster = LocalCluster(f"127.0.0.1:{port}", head)
        try:
            yield cluster
        finally:
            cluster.close()


@contextmanager
def autoscaling_cluster(
    node_types: Mapping[str, NodeType], *, idle_timeout_s: float
) -> Iterator[str]:
    """The address of a cluster whose autoscaler (v2) starts and ends nodes on demand.

    The autoscaler is Ray's own; its nodes are local processes (Ray's fake provider). Ray's own
    `AutoscalingCluster` lacks a file in the wheel, and ends every Ray on the machine.
    """
    # The head's node id is fixed: the provider must know it before the head starts.
    head_id = "f" * 51 + "00000"
    port = _free_port()
    config = {
        "cluster_name": "local",
        "max_workers": sum(node.max_nodes for node in node_types.values()),
        "idle_timeout_minutes": idle_timeout_s / 60,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "launch_multiple": True,
            "head_node_id": head_id,
            "gcs_address": f"127.0.0.1:{port}",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {},
        **{name: [] for name in _COMMANDS},
        "file_mounts": {},
        "docker": {},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            **{name: _node_type(node) for name, node in node_types.items()},
        },
    }
    environment = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": head_id,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": head_id,
    }
    with _temp_dir() as temp:
        path = temp / "autoscaling.json"
        path.write_text(json.dumps(config))
        head = _start(
            [*_head(port, temp), f"--autoscaling-config={path}"],
            environment,
            there=lambda: _listens(port),
        )
        try:
            yield f"127.0.0.1:{port}"
        finally:
            _kill(head)


def alive_nodes() -> dict[str, Mapping[str, Any]]:
    """The nodes of the connected cluster by name, as returned by `ray.nodes`."""
    return {node["NodeName"]: node for node in ray.nodes() if node["Alive"]}


def node_id(name: str) -> str:
    """Ray's id of an alive node."""
    return alive_nodes()[name]["NodeID"]


def roles() -> Counter[str]:
    """The number of alive nodes of each role."""
    # Nodes that an autoscaler started have no names of their own.
    labels = [node["Labels"] or {} for node in ray.nodes() if node["Alive"]]
    return Counter(of_node[ROLE] for of_node in labels if ROLE in of_node)


def _node_type(node: NodeType) -> dict[str, Any]:
    return {
        "resources": {
            "CPU": node.cpus,
            "GPU": node.gpus,
            "object_store_memory": OBJECT_STORE_BYTES,
            **node.resources,
        },
        "labels": dict(node.labels),
        "node_config": {},
        "min_workers": 0,
        "max_workers": node.max_nodes,
    }


def _head(port: int, temp: Path) -> list[str]:
    return [
        "ray", "start", "--head", "--block", f"--port={port}", "--node-name=head", "--num-cpus=0",
        "--num-gpus=0", f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={temp}",
        "--include-dashboard=false", "--include-log-monitor=false",
    ]  # fmt: skip


def _start(
    command: list[str], environment: Mapping[str, str] | None = None, *, there: Callable[[], bool]
) -> psutil.Process:
    """Starts a head or a node. Raises RuntimeError, with its output, if it does not start."""
    with tempfile.TemporaryFile() as output:
        started = subprocess.Popen(
            command,
            env={**os.environ, **_ENVIRONMENT, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        process = psutil.Process(started.pid)
        try:
            until(lambda: there() or started.poll() is not None, within_s=START_S)
        except TimeoutError:
            _kill(process)
        except BaseException:  # in a session of its own it would outlive this process
            _kill(process)
            raise
        if started.poll() is not None:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)}: did not start:\n{output.read().decode()}")
    return process


def _kill(process: psutil.Process) -> None:
    try:
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=START_S)


@contextmanager
def _temp_dir() -> Iterator[Path]:
    """A folder for Ray with a short path: names of sockets are limited to 107 bytes."""
    temp = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    try:
        yield temp
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
