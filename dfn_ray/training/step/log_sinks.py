"""Sinks for the curves of a run: TensorBoard, Weights & Biases, MLflow.

The authoritative log is `log/`, which contains each step once even after crashes. Event files are a
copy for TensorBoard, one per generation of workers, and are never read again: no step is in two of
them, but after a crash between a checkpoint and the copy that follows it, the file of that
generation lacks the steps since its previous copy.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]  made at import
from tensorboardX.summary import scalar

from dfn_ray.config import Logs
from dfn_ray.errors import InputError
from dfn_ray.run import MLFLOW, Run

TENSORBOARD = "tensorboard"
_WHEN = "samples_seen"


class Sink(Protocol):
    """A destination for the figures of steps."""

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Records the figures of a step."""
        ...

    def save(self, run: Run) -> None:
        """Saves everything written so far."""
        ...


def open_sinks(logs: Logs, run: Run, recipe: Mapping[str, Any], generation: str) -> list[Sink]:
    """Returns the sinks that a recipe requests, for the generation of workers of this name.

    Raises InputError that names a missing package.
    """
    sinks: list[Sink] = []
    if logs.tensorboard:
        sinks.append(_TensorBoard(generation))
    if logs.wandb_project is not None:
        sinks.append(_Wandb(logs.wandb_project, run, recipe))
    if logs.mlflow_uri is not None:
        sinks.append(_Mlflow(logs.mlflow_uri, run))
    return sinks


class _TensorBoard:
    """Event files, one per generation, copied to the run's storage with each checkpoint."""

    def __init__(self, generation: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dfn_ray-events-")
        # Not a SummaryWriter: its flush does not wait for the writer thread, so the last steps
        # would be missing.
        self._writer = EventsWriter(f"{self._folder.name}/events", f".{generation}")

    def write(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            summary = scalar(name, value)
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))

    def save(self, run: Run) -> None:
        self._writer.flush()
        for path in Path(self._folder.name).iterdir():
            run.write(f"{TENSORBOARD}/{path.name}", path.read_bytes())


class _Wandb:
    """One W&B run per dfn_ray run, resumed with it."""

    def __init__(self, project: str, run: Run, recipe: Mapping[str, Any]) -> None:
        try:
            import wandb  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  optional
        except ImportError:
            raise InputError(
                "logs.wandb_project: needs the wandb package; pip install wandb"
            ) from None
        # Not the fingerprint, which all runs of a recipe share.
        identity = run.description["id"][:16]
        self._run = wandb.init(project=project, id=identity, resume="allow", config=dict(recipe))

    def write(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def save(self, run: Run) -> None:
        del run  # W&B has its own storage


class _Mlflow:
    """One MLflow run per dfn_ray run, named after its URI and resumed with it."""

    def __init__(self, uri: str, run: Run) -> None:
        try:
            import mlflow  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  optional
        except ImportError:
            raise InputError(
                "logs.mlflow_uri: needs the mlflow package; pip install mlflow"
            ) from None
        mlflow.set_tracking_uri(uri)
        # MLflow assigns the id, so the run has to store it.
        stored, before = run.read_json_bytes(MLFLOW)
        known = stored or {}
        started = mlflow.start_run(run_id=known.get(uri), run_name=run.uri)
        run.replace_json(MLFLOW, known | {uri: started.info.run_id}, before)
        self._mlflow = mlflow

    def write(self, figures: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(figures), step=step)

    def save(self, run: Run) -> None:
        del run  # MLflow has its own storage
