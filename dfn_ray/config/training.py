"""The recipe of a training run, `dfn-ray train`.

Defaults are open_clip's if it has one. `scale` fills in the settings of DataComp or the DFN paper;
settings of the recipe take precedence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from pydantic_core import ArgsKwargs

from dfn_ray.config.checks import Fraction, NonNegative, Positive, Target
from dfn_ray.config.networks import Decode, Network
from dfn_ray.config.optimization import Optimizer, filled_from_scale
from dfn_ray.config.sections import require_rules, section
from dfn_ray.config.sources import Augmentation, Source
from dfn_ray.config.workers import Checkpoints, Feed, Logs, Workers


def _or_of_scale() -> Any:
    """A field without a default that a type checker lets callers omit, because `scale` sets it."""
    return Field()


@section
class TrainRecipe:
    """A training run. Its result is `network/`, which `dfn-ray filter` and open_clip both load."""

    run_uri: Target
    """Folder or object prefix of the run. It is created, or resumed if it contains the run of this
    recipe."""
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    """`[[sources]]`: the pairs to train on, at least one source."""
    model: Network = _or_of_scale()
    """`[model]`: the network to start from; `random_weights_seed` starts from scratch. `precision`:
    `fp32`, or `bf16` to run the forward pass in autocast. Required without `scale`."""
    samples_seen: Positive = _or_of_scale()
    """Samples in total, with repeats, >= `batch_size`. Required without `scale`."""
    batch_size: Positive = _or_of_scale()
    """Samples of one optimizer step over all workers, >= 1: the contrastive batch. Required without
    `scale`."""
    scale: Literal["small", "medium", "large", "xlarge", "dfn5b"] | None = None
    """DataComp's scales (small: 12.8 M samples, ..., xlarge: 12.8 B) or DFN-5B's ViT-H (39 B),
    which set `model`, `samples_seen`, `batch_size` and `optimizer`; the recipe's own values take
    precedence. In Python, a Network or Optimizer object replaces the scale's whole section."""
    accumulate: Positive = 1
    """Micro-batches per step on a worker, >= 1. The contrastive batch stays whole (open_clip's
    accum_freq)."""
    loss: Literal["clip", "siglip"] = "clip"
    """`clip`: softmax over the whole batch. `siglip`: a sigmoid for each pair."""
    seed: NonNegative = 0
    """Seed of order, augmentation and templates, >= 0."""
    ensemble_alpha: Fraction | None = None
    """WiSE-FT: the result is (1 - alpha) * start + alpha * trained, 0 to 1. None: trained only."""
    max_failed_fraction: Fraction = 0.25
    """Largest fraction, 0 to 1, of a source's samples that may fail in reading (checked before
    workers start), and of all samples that may fail in reading or decoding (checked after 10,000
    samples, and at the end). If it is exceeded the run stops, as in filtering."""
    max_bad_shard_fraction: Fraction = 0.25
    """Largest fraction of a source's shards that may be bad, 0 to 1. If it is exceeded the run
    stops, as in filtering."""
    accept_versions: bool = False
    """Permission to resume a run whose last attempt used other versions of torch, open_clip,
    pillow, simplejpeg, or another major version of numpy."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """`[optimizer]`: AdamW and its schedule."""
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    """`[augmentation]`: random changes to images. None (`--set augmentation=none`): none."""
    decode: Decode = field(default_factory=Decode)
    """`[decode]`: decoding of images, as in filtering."""
    workers: Workers = field(default_factory=Workers)
    """`[workers]`: the processes that train."""
    feed: Feed = field(default_factory=Feed)
    """`[feed]`: delivery of samples to the workers."""
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    """`[checkpoints]`: checkpoints and exports."""
    logs: Logs = field(default_factory=Logs)
    """`[logs]`: destinations of training curves."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_in_scale(cls, value: Any) -> Any:
        if isinstance(value, ArgsKwargs):  # from Python
            return ArgsKwargs(value.args, dict(filled_from_scale(value.kwargs or {})))
        return filled_from_scale(value) if isinstance(value, Mapping) else value

    def __post_init__(self) -> None:
        require_rules(self._broken_rules())

    def _broken_rules(self) -> Iterator[str]:
        if len({source.weight is None for source in self.sources}) > 1:
            yield "sources: need a weight for every source or for none, got a weight for some only"
        if self.samples_seen < self.batch_size:
            yield (
                f"samples_seen: need at least one batch of {self.batch_size}, "
                f"got {self.samples_seen}"
            )
        if self.workers.max_size * self.accumulate > self.batch_size:
            yield (
                f"batch_size: need a sample for each of {self.workers.max_size} workers x "
                f"{self.accumulate} micro-batches, got {self.batch_size}"
            )
        if self.model.precision == "fp16":
            yield "model.precision: need fp32 or bf16 for training, got 'fp16'"
        if self.ensemble_alpha is not None and self.model.random_weights_seed is not None:
            yield "ensemble_alpha: needs weights to start from, got random_weights_seed"

    @property
    def samples_between_checkpoints(self) -> int:
        """`checkpoints.every_samples`, or a twentieth of the run."""
        return self.checkpoints.every_samples or max(1, self.samples_seen // 20)
