"""raycluster.yaml and the RayJobs against KubeRay's fields and Kubernetes' own schema."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest

from tests.cluster_files.files import (
    CLUSTER,
    KUBERAY,
    MACHINES,
    OBJECT_STORE_FRACTION,
    cluster_spec,
    gigabytes,
    groups_of,
    loaded,
    ray_parses,
)
from tests.cluster_files.kuberay_crd import custom_resource


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_takes_the_manifest(name):
    manifest = loaded(name)
    jsonschema.validate(manifest, custom_resource(manifest["kind"]))


@pytest.mark.parametrize("name", KUBERAY)
def test_kubernetes_takes_every_pod(name):
    import kubernetes_validate

    for group_name, group in groups_of(name).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": group_name}}
        pod["spec"] = group["template"]["spec"]
        if group_name == "head":
            pod["spec"]["containers"].append(_autoscaler(name))
        kubernetes_validate.validate(pod, "1.33", strict=True)


def _autoscaler(name: str) -> dict[str, Any]:
    """The autoscaler container that KubeRay adds: its options are a container's fields."""
    options = cluster_spec(name)["autoscalerOptions"]
    return {"name": "autoscaler", **{key: options[key] for key in ("env", "resources")}}


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_reserve_what_they_may_use_and_hold_the_object_store(name):
    for group in groups_of(name).values():
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        (shm,) = [v["emptyDir"] for v in pod["volumes"] if v["name"] == "shm"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
        assert shm["medium"] == "Memory"
        limits = container["resources"]["limits"]
        memory, store = gigabytes(limits["memory"]), gigabytes(shm["sizeLimit"])
        assert OBJECT_STORE_FRACTION * memory <= store <= 0.35 * memory
        assert gigabytes(limits["ephemeral-storage"]) >= store


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_find_their_machines_and_say_goodbye(name):
    pods = {group_name: group["template"]["spec"] for group_name, group in groups_of(name).items()}
    assert {pod["nodeSelector"]["dfn-role"] for pod in pods.values()} == {"head", "decode", "score"}
    for group_name in ("score-spot", "score-on-demand"):
        pod = pods[group_name]
        (container,) = pod["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert _tolerates(pod, "nvidia.com/gpu", "present")
    assert pods["score-spot"]["nodeSelector"]["dfn-capacity"] == "spot"
    assert _tolerates(pods["score-spot"], "cloud.google.com/gke-spot", "true")
    assert _tolerates(pods["score-spot"], "dfn-capacity", "spot")
    for group_name in ("decode", "score-spot", "score-on-demand"):
        pod = pods[group_name]
        assert pod["restartPolicy"] == "Never"
        (container,) = pod["containers"]
        goodbye = container["lifecycle"]["preStop"]["exec"]["command"][-1]
        assert "ray drain-node" in goodbye
        asleep_s = int(re.search(r"sleep (\d+)", goodbye)[1])
        assert pod["terminationGracePeriodSeconds"] >= asleep_s + 10, "ray's commands take seconds"


@pytest.mark.parametrize("name", KUBERAY)
def test_ray_knows_every_option_that_it_is_started_and_drained_with(name):
    for group in groups_of(name).values():
        ray_parses(
            " ".join(["ray start", *(f"--{k}={v}" for k, v in group["rayStartParams"].items())])
        )
        (container,) = group["template"]["spec"]["containers"]
        if "lifecycle" in container:
            ray_parses(container["lifecycle"]["preStop"]["exec"]["command"][-1])


def test_the_readmes_pools_of_machines_are_those_that_the_pods_look_for():
    readme = (CLUSTER / "README.md").read_text().replace("\\\n", "")
    pools = {}
    for name, flags in re.findall(r"^pool (\S+) (.*)$", readme, flags=re.MULTILINE):
        pools[name] = dict(re.findall(r"--([a-z-]+) ([^-]\S*)", flags))
    groups = groups_of("raycluster")
    assert set(pools) == set(groups) - {"head"}
    for name, pool in pools.items():
        pod = groups[name]["template"]["spec"]
        labels = dict(pair.split("=") for pair in pool["node-labels"].split(","))
        assert pod["nodeSelector"] == labels
        assert int(pool["max-nodes"]) == groups[name]["maxReplicas"]
        for key, value in re.findall(r"([^=,]+)=([^:]+):NoSchedule", pool.get("node-taints", "")):
            assert _tolerates(pod, key, value)
        cpus, memory_gb, gpus = MACHINES[pool["machine-type"]]
        limits = pod["containers"][0]["resources"]["limits"]
        # What GKE leaves to pods of 16 vCPU, 64 GB and of 8 vCPU, 32 GB: about 57 and 28 GiB.
        assert cpus - 3 < float(limits["cpu"]) < cpus - 0.5
        assert gigabytes(limits["memory"]) < 0.85 * memory_gb
        assert limits.get("nvidia.com/gpu") == (str(gpus) if gpus else None)


def _tolerates(pod: dict[str, Any], key: str, value: str) -> bool:
    """True if a pod tolerates the taint key=value:NoSchedule (Kubernetes' rule for tolerations)."""
    return any(
        t.get("key") == key
        and t.get("effect") in (None, "NoSchedule")
        and (t.get("operator") == "Exists" or t.get("value") == value)
        for t in pod.get("tolerations", ())
    )


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_run_unprivileged_with_a_token_and_no_secret_in_the_file(name):
    spec = cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    for group in groups_of(name).values():
        pod = group["template"]["spec"]
        assert pod["serviceAccountName"] == "dfn-ray"
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert all("value" not in variable for variable in container.get("env", ()))


@pytest.mark.parametrize("name", KUBERAY)
def test_no_work_runs_on_the_head_pod_and_the_autoscaler_is_v2(name):
    spec = cluster_spec(name)
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    for group in groups_of(name).values():
        assert group["rayStartParams"]["metrics-export-port"] == "8080"


def test_the_three_manifests_have_the_same_cluster_but_for_its_size():
    specs = [cluster_spec(name) for name in KUBERAY]
    for spec in specs:
        for group in spec["workerGroupSpecs"]:
            del group["maxReplicas"]
    assert specs[0] == specs[1] == specs[2]


@pytest.mark.parametrize("name", KUBERAY[1:])
def test_jobs_retry_end_and_take_their_cluster_along(name):
    job = loaded(name)["spec"]
    assert job["backoffLimit"] >= 1
    assert job["activeDeadlineSeconds"] > 0
    assert job["shutdownAfterJobFinishes"] is True
    assert job["ttlSecondsAfterFinished"] > 0
