"""The sections on training processes: `[workers]`, `[feed]`, `[checkpoints]` and `[logs]`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from dfn_ray.config.checks import (
    Counts,
    CustomResources,
    NodeLabels,
    NonNegative,
    Positive,
    PositiveNumber,
    Text,
)
from dfn_ray.config.sections import require_rules, section


@section
class Workers:
    """`[workers]`: the Ray Train workers."""

    min_size: Positive = 1
    """Smallest number of workers with which training continues, 1 to `max_size`."""
    max_size: Positive = 1
    """Largest number of workers, >= `min_size`. Between the two, Ray Train resizes the group as
    nodes join and leave."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the model; never chosen automatically. `cuda` reserves one GPU per worker."""
    cpus: PositiveNumber = 1.0
    """CPUs reserved per worker, > 0. Decoding runs in tasks that reserve their own (`[decode]`)."""
    labels: NodeLabels = field(default_factory=dict)
    """Ray labels of the nodes that train; `[decode]` has those of the nodes that decode. Keys and
    values: letters, digits and `. _ - /`."""
    resources: CustomResources = field(default_factory=dict)
    """Custom Ray resources that a worker reserves: amount by name, > 0. Ray Train decides by
    resources, not by labels, how many workers fit: if min_size < max_size on the CPU, give the
    nodes that train a resource of their own."""
    threads: Positive | None = None
    """CPU threads of a worker's torch, >= 1. None: its CPUs, rounded up."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """`ddp` copies the model to every worker, `fsdp2` shards its state over them."""
    grad_checkpointing: bool = False
    """Recomputation of activations in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """torch.compile of the model."""
    max_failures: NonNegative = 8
    """Restarts of the group after dead workers or nodes, without a checkpoint in between, before
    the run stops, >= 0."""
    resize_interval_s: PositiveNumber = 60.0
    """Seconds between checks whether the group can be larger or must be smaller, > 0."""

    def __post_init__(self) -> None:
        require_rules(self._broken_rules())

    def _broken_rules(self) -> Iterator[str]:
        if self.min_size > self.max_size:
            got = f"{self.min_size} and {self.max_size}"
            yield f"min_size: need 1 <= min_size <= max_size, got {got}"


@section
class Feed:
    """`[feed]`: delivery of samples to the workers. It changes only the order of samples."""

    group_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Samples that are read and shuffled together, from chunks of all sources, 1 to 1,000,000.
    webdataset's buffer has 5,000."""
    prefetch_batches: NonNegative = 4
    """Batches prefetched for each worker, >= 0."""
    planned_groups: Positive = 20_000
    """Read tasks planned at a time, >= 1; bounds the memory of the driver and of Ray. More are
    planned when they are used up."""
    no_progress_timeout_s: PositiveNumber = 7200.0
    """Seconds without any data moving after which training stops, > 0. Ray's own default, 30
    minutes, ends jobs that wait for spot machines."""


@section
class Checkpoints:
    """`[checkpoints]`: checkpoints and exports on the run's storage."""

    every_samples: Positive | None = None
    """Samples between checkpoints, >= 1: the largest number of samples that are trained on again
    after a crash. None: a twentieth of `samples_seen`."""
    keep: Positive = 2
    """Latest checkpoints kept, >= 1."""
    export_at_samples: Counts = ()
    """Numbers of samples seen, each >= 0, after which the network is exported too, in open_clip's
    format."""


@section
class Logs:
    """`[logs]`: destinations of training curves. `log/*.jsonl` in the run is always written."""

    every_steps: Positive = 10
    """Steps between two lines of the log, >= 1."""
    tensorboard: bool = True
    """TensorBoard event files in the run's `tensorboard/`."""
    wandb_project: Text | None = None
    """Weights & Biases project to log to as well (needs the wandb package and its environment
    variables)."""
    mlflow_uri: Text | None = None
    """MLflow tracking server to log to as well (needs the mlflow package)."""
