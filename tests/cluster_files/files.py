"""The files in cluster/ as their readers see them."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.cluster_commands import ROOT

CLUSTER = ROOT / "cluster"
RAY_UP = ("aws", "gcp")
KUBERAY = ("raycluster", "rayjob-filter", "rayjob-train")

OBJECT_STORE_FRACTION = 0.3
"""Of a machine's memory: Ray's DEFAULT_OBJECT_STORE_MEMORY_PROPORTION, compared in test_ray_up."""


def loaded(name: str) -> Any:
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())


def cluster_spec(name: str) -> dict[str, Any]:
    """The RayCluster's spec, which a RayJob has inside its own."""
    manifest = loaded(name)
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


def groups_of(name: str) -> dict[str, dict[str, Any]]:
    spec = cluster_spec(name)
    return {
        "head": spec["headGroupSpec"],
        **{g["groupName"]: g for g in spec["workerGroupSpecs"]},
    }


def autoscaling_config(name: str) -> dict[str, Any]:
    """What Ray's autoscaler works with: the `ray up` file, or what it makes of a RayCluster."""
    if name in RAY_UP:
        return loaded(name)
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    metadata = {"name": "dfn", "namespace": "default"}
    return _derive_autoscaling_config_from_ray_cr(
        {"metadata": metadata, "spec": cluster_spec(name)}
    )


def gigabytes(size: str) -> float:
    return float(re.fullmatch(r"(\d+)(?:g|Gi)", size)[1])
