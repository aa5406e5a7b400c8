"""The files in cluster/, parsed."""

from __future__ import annotations

import re
import shlex
from typing import Any

import yaml

from tests.cluster_commands import ROOT

CLUSTER = ROOT / "cluster"
RAY_UP = ("aws", "gcp")
KUBERAY = ("raycluster", "rayjob-filter", "rayjob-train")

OBJECT_STORE_FRACTION = 0.3
"""Share of a machine's memory: Ray's DEFAULT_OBJECT_STORE_MEMORY_PROPORTION, compared in
test_ray_up."""
MACHINES = {  # vCPU, GiB, GPUs: the clouds' own tables
    "m7i.xlarge": (4, 16, 0),
    "m7i.4xlarge": (16, 64, 0),
    "g6.2xlarge": (8, 32, 1),
    "e2-standard-4": (4, 16, 0),
    "n2-standard-16": (16, 64, 0),
    "g2-standard-8": (8, 32, 1),
}


def loaded(name: str) -> Any:
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())


def cluster_spec(name: str) -> dict[str, Any]:
    """The RayCluster's spec, which a RayJob contains in its own."""
    manifest = loaded(name)
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


def groups_of(name: str) -> dict[str, dict[str, Any]]:
    spec = cluster_spec(name)
    return {
        "head": spec["headGroupSpec"],
        **{g["groupName"]: g for g in spec["workerGroupSpecs"]},
    }


def autoscaling_config(name: str) -> dict[str, Any]:
    """The configuration of Ray's autoscaler: the `ray up` file, or its form of a RayCluster."""
    if name in RAY_UP:
        return loaded(name)
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    metadata = {"name": "dfn", "namespace": "default"}
    return _derive_autoscaling_config_from_ray_cr(
        {"metadata": metadata, "spec": cluster_spec(name)}
    )


def ray_parses(line: str) -> None:
    """Raises click's error unless every `ray ...` in this shell line is a valid command of Ray."""
    import click
    from ray.scripts.scripts import cli

    calls = [call for call in _calls(line) if call[0] == "ray"]
    assert calls, line
    for _, verb, *words in calls:
        command = cli.commands[verb]
        if isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context(verb, words)


def _calls(line: str) -> list[list[str]]:
    """The simple commands of a shell line, comments and redirections left out."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    calls: list[list[str]] = [[]]
    for word in words:
        if word in (";", "&", "&&", ">"):
            calls.append([])
        else:
            calls[-1].append(word)
    return [call for call in calls if call]


def gigabytes(size: str) -> float:
    return float(re.fullmatch(r"(\d+)(?:g|Gi)", size)[1])
