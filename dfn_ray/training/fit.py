"""One generation of workers in Ray Train in Ray Train, until they are done or one of them dies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from dfn_ray.console.progress import TrainingProgress
from dfn_ray.errors import DfnRayError, RunTakenOverError, StorageError, last_line
from dfn_ray.on_ray.bundles import worker_bundle
from dfn_ray.on_ray.capacity import reporting_missing_capacity, worker_requirement
from dfn_ray.on_ray.failures import dfn_ray_error_in
from dfn_ray.on_ray.ray_metrics import TrainingMetrics
from dfn_ray.on_ray.repeating import repeating
from dfn_ray.on_ray.session import driver_node_selector
from dfn_ray.run import Run
from dfn_ray.storage import filesystem
from dfn_ray.training.chain import DATASET, in_order
from dfn_ray.training.data.feed import COUNTED
from dfn_ray.training.data.next_samples import NextSamples
from dfn_ray.training.position import generation_count
from dfn_ray.training.step.worker import train_worker
from dfn_ray.training.worker_spec import WorkerSpec


@dataclass(frozen=True, kw_only=True)
class FitOutcome:
    """The outcome of one run of a group of workers."""

    error: Exception | None = None
    """The workers' error, if another start may succeed."""
    unplaced: Mapping[str, int] = field(default_factory=dict)
    """Failed samples after the last one that could be trained on, by `failed/reason`."""


def fit(
    spec: WorkerSpec,
    next_samples: NextSamples,
    progress: TrainingProgress,
    metrics: TrainingMetrics,
) -> FitOutcome:
    """Runs workers once: until the target, the end of the planned data, or a failure.

    Raises the DfnRayError of a worker or a reader if another start cannot succeed.
    """
    run, workers = next_samples.run, next_samples.recipe.workers
    bundle = worker_bundle(workers)
    reports = Reports.options(label_selector=driver_node_selector()).remote()  # pyright: ignore[reportAttributeAccessIssue]
    size = (
        workers.min_size
        if workers.min_size == workers.max_size
        else (workers.min_size, workers.max_size)
    )
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"spec": replace(spec, reports=reports)},
        torch_config=TorchConfig(backend="nccl" if workers.device == "cuda" else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=size,
            use_gpu=workers.device == "cuda",
            resources_per_worker=dict(bundle.resources),
            label_selector=dict(bundle.labels) or None,
            elastic_resize_monitor_interval_s=workers.resize_interval_s,
        ),
        run_config=RunConfig(
            # A new name for every start: Ray Train would resume from its own records of an older
            # one.
            name=f"start-{run.attempt.number:06d}-{generation_count(run) + 1:04d}",
            storage_path=_ray_path(run),
            storage_filesystem=_ray_filesystem(run),
            # `train_clip` decides about restarts.
            failure_config=FailureConfig(max_failures=0),
        ),
        datasets={DATASET: replace(next_samples, reports=reports)},
        dataset_config=in_order(),
    )
    with (
        _watching(reports, progress, metrics),
        reporting_missing_capacity([worker_requirement(workers)], progress.say),
    ):
        try:
            trainer.fit()
        except (TrainingFailedError, RayError) as error:
            own = _own_error(error)
            if own is not None and _is_final(own):
                raise own from error
            return FitOutcome(error=own or error)
    return FitOutcome(unplaced=_unplaced(reports, progress))


def _unplaced(reports: Any, progress: TrainingProgress) -> dict[str, int]:
    """Counts in no checkpoint. The workers have succeeded, so a lost actor is only a warning."""
    try:
        return ray.get(reports.unplaced_counts.remote())
    except RayError as error:
        progress.say(
            f"warning: failed samples after the last batch are not counted: {last_line(error)}"
        )
        return {}


def _own_error(error: Exception) -> DfnRayError | None:
    """The DfnRayError that caused a failed start, of a worker or of a task that read for it."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    causes = (dfn_ray_error_in(failure) for failure in (*failures.values(), error))
    return next((cause for cause in causes if cause is not None), None)


def _is_final(error: DfnRayError) -> bool:
    """False if another start may succeed.

    A store may recover; RunTakenOverError stops a worker that was replaced after it seemed dead.
    """
    return type(error) is not StorageError and not isinstance(error, RunTakenOverError)


@ray.remote(num_cpus=0)
class Reports:
    """Collects the workers' figures per step, and the readers' counts that belong to no row."""

    def __init__(self) -> None:
        self._lines: list[dict[str, float]] = []
        # By generation, group and place: if a place is read again, its counts replace the earlier
        # ones.
        self._unplaced: dict[tuple[int, int, int], np.ndarray] = {}

    def add(self, line: dict[str, float]) -> None:
        """Adds the figures of a step."""
        self._lines.append(line)

    def take(self) -> list[dict[str, float]]:
        """Removes and returns the figures so far."""
        lines, self._lines = self._lines, []
        return lines

    def add_unplaced(self, generation: int, group: int, place: int, counts: np.ndarray) -> None:
        """Adds the counts of failed samples, from a place on, that belong to no row."""
        self._unplaced[generation, group, place] = counts

    def take_unplaced(self, generation: int, closed: int) -> np.ndarray:
        """Removes and returns the counts of a generation's groups below `closed`."""
        keys = [key for key in self._unplaced if key[0] == generation and key[1] < closed]
        return np.sum([np.zeros(len(COUNTED), np.int64), *map(self._unplaced.pop, keys)], axis=0)

    def unplaced_counts(self) -> dict[str, int]:
        """Returns the remaining counts of the last generation's groups, by name."""
        last = max((generation for generation, *_ in self._unplaced), default=0)
        left = [counts for (number, *_), counts in self._unplaced.items() if number == last]
        total = np.sum([np.zeros(len(COUNTED), np.int64), *left], axis=0)
        return {name: int(n) for name, n in zip(COUNTED, total, strict=True) if n}


@contextmanager
def _watching(reports: Any, progress: TrainingProgress, metrics: TrainingMetrics) -> Iterator[None]:
    """Shows the workers' reports while the block runs."""

    def show() -> None:
        try:
            lines = ray.get(reports.take.remote())
        except RayError:
            return  # the actor is lost, and with it only figures to show
        for line in lines:
            progress.show(line)
            metrics.show(line)

    try:
        with repeating(show, 1.0):
            yield
    finally:
        show()


def _ray_path(run: Run) -> str:
    """The path of Ray Train's own records, in the run's folder."""
    path = filesystem(run.store.uri)._strip_protocol(run.store.uri)
    return f"{path}/ray_train"


def _ray_filesystem(run: Run) -> pafs.FileSystem:
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem(run.store.uri)))
