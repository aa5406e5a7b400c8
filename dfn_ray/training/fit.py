"""One start of Ray Train: workers run until they are done or one of them dies."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow.fs as pafs
import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from dfn_ray.errors import DfnRayError, InputError, TrainingFailed
from dfn_ray.flow.bundles import worker_bundle
from dfn_ray.flow.capacity import telling_lacks, workers_needed
from dfn_ray.flow.datasets import drivers_node
from dfn_ray.flow.metrics import TrainingMetrics
from dfn_ray.manifest import Run
from dfn_ray.storage import filesystem
from dfn_ray.telemetry import TrainingProgress
from dfn_ray.training.job import Job
from dfn_ray.training.next_samples import NextSamples
from dfn_ray.training.position import GENERATION
from dfn_ray.training.stream import DATASET, in_order
from dfn_ray.training.worker import train_worker


def fit(
    target: int,
    plan: NextSamples,
    network: ray.ObjectRef,
    progress: TrainingProgress,
    metrics: TrainingMetrics,
) -> Exception | None:
    """Run workers once: until the target, the end of the planned data, or a failure, which is returned.

    Raises the DfnRayError of a worker that no other start can mend.
    """
    recipe, workers = plan.recipe, plan.recipe.workers
    asked = worker_bundle(workers)
    reports = _Reports.options(label_selector=drivers_node()).remote()  # pyright: ignore[reportAttributeAccessIssue]
    job = Job(run=plan.run, recipe=recipe, network=network, until_samples=target, reports=reports)
    generations = plan.run.read_json(GENERATION) or {"number": 0}
    size = (
        workers.min_size
        if workers.min_size == workers.max_size
        else (workers.min_size, workers.max_size)
    )
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if workers.device == "cuda" else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=size,
            use_gpu=workers.device == "cuda",
            resources_per_worker=dict(asked.resources),
            label_selector=dict(asked.labels) or None,
            elastic_resize_monitor_interval_s=workers.resize_interval_s,
        ),
        run_config=RunConfig(
            # A name of its own: Ray Train would go on from its own records of an older one.
            name=f"start-{generations['number'] + 1:04d}",
            storage_path=_ray_path(plan.run),
            storage_filesystem=_ray_filesystem(plan.run),
            # Whether another start can help is for `train_clip` to judge.
            failure_config=FailureConfig(max_failures=0),
        ),
        datasets={DATASET: plan},
        dataset_config=in_order(),
    )
    with (
        _watching(reports, progress, metrics),
        telling_lacks([workers_needed(workers)], progress.say),
    ):
        try:
            trainer.fit()
        except (TrainingFailedError, RayError) as error:
            if (final := _final(error)) is not None:
                raise final from error
            return error
    return None


def _final(error: Exception) -> DfnRayError | None:
    """What another start cannot mend."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    for failure in (*failures.values(), error):
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, InputError | TrainingFailed):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    return None


@ray.remote(num_cpus=0)
class _Reports:
    """Where workers leave the figures of their steps for the driver."""

    def __init__(self) -> None:
        self._lines: list[dict[str, float]] = []

    def add(self, line: dict[str, float]) -> None:
        self._lines.append(line)

    def take(self) -> list[dict[str, float]]:
        lines, self._lines = self._lines, []
        return lines


@contextmanager
def _watching(reports: Any, progress: TrainingProgress, metrics: TrainingMetrics) -> Iterator[None]:
    """Show what workers report while the block runs."""
    stop = threading.Event()

    def show() -> None:
        for line in ray.get(reports.take.remote()):
            progress.show(line)
            metrics.show(line)

    def watch() -> None:
        while not stop.wait(1.0):
            show()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        show()


def _ray_path(run: Run) -> str:
    """Where Ray Train keeps its own records, beside the run's."""
    path = filesystem(run.store.uri)._strip_protocol(run.store.uri)
    return f"{path}/ray_train"


def _ray_filesystem(run: Run) -> pafs.FileSystem:
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem(run.store.uri)))
