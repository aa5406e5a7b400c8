"""aws.yaml and gcp.yaml against Ray's loader, the clouds' API descriptions and machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cluster_files.files import (
    CLUSTER,
    MACHINES,
    OBJECT_STORE_FRACTION,
    RAY_UP,
    gigabytes,
    loaded,
    ray_parses,
)

AMI_GB, IMAGE_GB = 75, 20
"""Disk space of both clouds' Deep Learning images and of ours, unpacked."""


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


def test_google_disks_are_in_the_machines_zone_and_of_a_kind_that_gpu_machines_take():
    config = loaded("gcp")
    zone = config["provider"]["availability_zone"]
    assert zone.startswith(config["provider"]["region"])
    for node_type in config["available_node_types"].values():
        (disk,) = node_type["node_config"]["disks"]
        assert disk["initializeParams"]["diskType"] == f"zones/{zone}/diskTypes/pd-balanced"
    disks_gb = sum(
        _disk_gb(t) * (t["max_workers"] or 1) for t in config["available_node_types"].values()
    )
    assert f"{disks_gb} GB of SSD disks" in (CLUSTER / "README.md").read_text()


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
def test_ray_knows_every_option_that_it_is_started_with(name):
    config = loaded(name)
    for command in (*config["head_start_ray_commands"], *config["worker_start_ray_commands"]):
        ray_parses(command)


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
    spot, twin = types["score-spot"], types["score-on-demand"]
    assert (spot["resources"], spot["labels"]) == (twin["resources"], twin["labels"])
    if name == "aws":
        assert spot["node_config"].pop("InstanceMarketOptions") == {"MarketType": "spot"}
    else:
        for settings in (spot, twin):
            assert settings["node_config"]["scheduling"]["onHostMaintenance"] == "TERMINATE"
        assert spot["node_config"].pop("scheduling")["provisioningModel"] == "SPOT"
        assert "provisioningModel" not in twin["node_config"].pop("scheduling")
    assert spot["node_config"] == twin["node_config"]


def test_the_readme_asks_for_the_quota_that_aws_yaml_can_use():
    types = loaded("aws")["available_node_types"]
    vcpus = {name: _machine(t)[0] * (t["max_workers"] or 1) for name, t in types.items()}
    spot, on_demand = vcpus["score-spot"], vcpus["score-on-demand"]
    others = vcpus["decode"] + vcpus["head"]
    wanted = (
        f"{spot} spot and {on_demand} on demand for G machines, {others} on demand for the others"
    )
    assert wanted in (CLUSTER / "README.md").read_text()
