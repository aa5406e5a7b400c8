"""Nodes that Ray's own autoscaler starts with these files for dfn_ray's resource requests."""

from __future__ import annotations

import pytest

from tests.cluster_files.files import (
    KUBERAY,
    RAY_UP,
    autoscaling_config,
    cluster_spec,
    groups_of,
    loaded,
)

ALL = [*RAY_UP, *KUBERAY]

SPOT, ON_DEMAND = "score-spot", "score-on-demand"


@pytest.mark.parametrize("name", ALL)
def test_scorers_get_spot_gpus_and_decoding_gets_cpu_machines(name):
    assert launched(name, {"GPU": 1}, "score", 3) == {SPOT: 3}
    assert launched(name, {"CPU": 1}, "decode", 20) == {"decode": 2}


@pytest.mark.parametrize("name", ALL)
def test_scorers_get_the_twin_while_spot_is_known_to_be_out(name):
    assert launched(name, {"GPU": 1}, "score", 3, down=(SPOT,)) == {ON_DEMAND: 3}


@pytest.mark.parametrize("name", ALL)
def test_no_more_nodes_than_the_file_allows(name):
    types = autoscaling_config(name)["available_node_types"]
    most = {t: types[t]["max_workers"] for t in (SPOT, ON_DEMAND)}
    assert launched(name, {"GPU": 1}, "score", 1000) == most


def test_ray_up_keeps_one_gpu_for_sure_because_a_refused_spot_machine_does_not_count_as_out():
    """If this fails, Ray supports it, and `min_workers: 1` with its comment can be removed."""
    from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import (
        CloudResourceMonitor,
    )
    from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

    def known_out_after(status: int) -> bool:
        monitor = CloudResourceMonitor()
        event = InstanceUpdateEvent(instance_type="score-spot", new_instance_status=status)
        monitor.notify([event])
        return monitor.get_recoverable_resource_availabilities() == {"score-spot": 0.0}

    assert not known_out_after(Instance.ALLOCATION_FAILED)
    for name in RAY_UP:
        assert loaded(name)["available_node_types"]["score-on-demand"]["min_workers"] == 1

    assert known_out_after(Instance.ALLOCATION_TIMEOUT)
    for name in KUBERAY:
        assert groups_of(name)["score-on-demand"]["minReplicas"] == 0
        (timeout,) = cluster_spec(name)["autoscalerOptions"]["env"]
        assert timeout["name"] == "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S"


def launched(
    name: str, demand: dict[str, float], role: str, count: int, down: tuple[str, ...] = ()
):
    """Nodes by type that Ray's scheduler starts for `count` actors of this demand and role.

    `down`: types that Ray knows to be unavailable.
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
