"""The recipe of a training run: sources, model, optimizer, workers, checkpoints.

Defaults are open_clip's where it has one. `scale` fills in what DataComp or the DFN paper prescribe; the recipe's own win.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pydantic
from pydantic_core import ArgsKwargs

from dfn_ray.config.checks import STRICT, Target, Texts, Uri, above, at_least, between, placement
from dfn_ray.config.filtering import Decode, Network, Pool


@dataclass(frozen=True, kw_only=True)
class Labels:
    """`[sources.labels]`: captions for a labelled set, `template.format(class name)`.

    A different template is drawn for a sample in each pass (the DFN paper fine-tunes on ImageNet so).
    """

    __pydantic_config__ = STRICT

    classnames: Texts
    """One name per class, in label order; or a single path or URI of a file with one a line; or `imagenet`."""
    templates: Texts = ("openai",)
    """`openai`: the 80 that open_clip calls OPENAI_IMAGENET_TEMPLATES; `simple`: its 7; or texts with `{}`."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """`[[sources]]`: pairs to train on."""

    __pydantic_config__ = STRICT

    pool: Pool
    """A subset's folder, or a pool in any format that filtering reads. Of several captions (`caption = "lines"` or `"list"`,
    the latter for a subset of either) one is drawn each time its sample comes, in as many passes as there are each once."""
    name: str = "pairs"
    """In logs."""
    weight: float | None = None
    """Share of the samples seen, relative to the other sources. None for all: as large as each source is."""
    sample_count: int | None = None
    """Train on this many of its samples, drawn at random by `seed` of the recipe; the same ones in every pass."""
    uid_list: Uri | None = None
    """Only samples in this sorted u8,u8 list, each as often in a pass as the list has it."""
    labels: Labels | None = None
    """The captions are class numbers (a `cls` member or an integer column): make captions of them."""

    def __post_init__(self) -> None:
        if self.weight is not None:
            above("weight", self.weight, 0)
        if (self.labels is not None) != (self.pool.caption == "label"):
            raise ValueError(
                'labels: go with pool.caption = "label", and it with them, got only one of the two'
            )
        at_least("sample_count", self.sample_count, 1)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """`[augmentation]`: varies each image in each pass. Defaults are open_clip's AugmentationCfg."""

    __pydantic_config__ = STRICT

    min_scale: float = 0.9
    """Smallest share of the area that the random crop keeps, 0 to 1."""
    max_scale: float = 1.0
    """Largest, `min_scale` to 1."""
    min_ratio: float = 0.75
    """Smallest width / height of the crop, before it is resized to the network's size."""
    max_ratio: float = 4 / 3
    """Largest width / height, >= `min_ratio`."""
    flip_probability: float = 0.0
    """Of mirroring. open_clip never mirrors: text and left/right would be wrong."""
    jitter: float = 0.0
    """Brightness, contrast and saturation are scaled by 1 - jitter to 1 + jitter, 0 to 1."""
    hue_jitter: float = 0.0
    """Hues are moved by up to this share of the colour circle, 0 to 0.5."""
    grayscale_probability: float = 0.0
    """Of making it grey, 0 to 1."""

    def __post_init__(self) -> None:
        between("min_scale", self.min_scale, 0.01, self.max_scale)
        between("max_scale", self.max_scale, self.min_scale, 1.0)
        between("min_ratio", self.min_ratio, 0.01, self.max_ratio)
        for name in ("flip_probability", "jitter", "grayscale_probability"):
            between(name, getattr(self, name), 0.0, 1.0)
        between("hue_jitter", self.hue_jitter, 0.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """`[optimizer]`: AdamW with open_clip's parameter groups, linear warm-up, cosine to zero."""

    __pydantic_config__ = STRICT

    learning_rate: float = 5e-4
    """At the end of the warm-up."""
    beta1: float = 0.9
    """Decay of the mean of gradients, 0 to 1; open_clip's."""
    beta2: float = 0.98
    """0.98 is open_clip's for ViTs; DataComp and DFN take 0.95 at the largest batches."""
    eps: float = 1e-6
    """Added to the root of the mean square, > 0; open_clip's for ViTs."""
    weight_decay: float = 0.2
    """Not for gains, biases and logit_scale."""
    warmup_steps: int = 500
    """Optimizer steps of full batches."""
    clip_norm: float | None = None
    """Largest gradient norm; None: no clipping."""
    max_logit_scale: float = 100.0
    """logit_scale.exp() is clamped to at most this after each step (CLIP, section 2.5)."""

    def __post_init__(self) -> None:
        above("learning_rate", self.learning_rate, 0)
        between("beta1", self.beta1, 0.0, 0.999999)
        between("beta2", self.beta2, 0.0, 0.999999)
        above("eps", self.eps, 0)
        at_least("weight_decay", self.weight_decay, 0)
        at_least("warmup_steps", self.warmup_steps, 0)
        if self.clip_norm is not None:
            above("clip_norm", self.clip_norm, 0)
        at_least("max_logit_scale", self.max_logit_scale, 1)


@dataclass(frozen=True, kw_only=True)
class Workers:
    """`[workers]`: the Ray Train workers."""

    __pydantic_config__ = STRICT

    min_size: int = 1
    """Fewest workers that training goes on with, >= 1."""
    max_size: int = 1
    """Most workers; between the two, Ray Train resizes the group as nodes come and go."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the model is; stated, never guessed. `cuda` reserves one GPU per worker."""
    cpus: float = 1.0
    """CPUs that a worker reserves. Decoding runs in tasks that reserve their own (`[decode]`)."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Only nodes with these Ray labels train. `[decode]` says which decode."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom Ray resources that a worker reserves, by name. Ray Train decides how many workers there can be by resources
    and not by labels: where min_size < max_size on the CPU, give the nodes that train one of their own."""
    threads: int | None = None
    """CPU threads of a worker's torch. None: its CPUs, rounded up."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """`ddp` copies the model to every worker, `fsdp2` shards its state over them."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward: less memory, about a third more time."""
    compile: bool = False
    """torch.compile of the model."""
    max_failures: int = 8
    """Restarts of the group in a row, after dead workers or nodes, without a checkpoint between, before the run stops, >= 0."""
    resize_interval_s: float = 60.0
    """How often a larger or smaller group is considered."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_size <= self.max_size:
            raise ValueError(
                f"min_size: need 1 <= min_size <= max_size, got {self.min_size} and {self.max_size}"
            )
        above("cpus", self.cpus, 0)
        at_least("threads", self.threads, 1)
        at_least("max_failures", self.max_failures, 0)
        above("resize_interval_s", self.resize_interval_s, 0)
        placement(self.labels, self.resources)


@dataclass(frozen=True, kw_only=True)
class Feed:
    """`[feed]`: how samples reach the workers. Changes their order, never which are seen."""

    __pydantic_config__ = STRICT

    group_samples: int = 4096
    """Samples that are read and shuffled together, from chunks all over the sources; webdataset's buffer has 5,000."""
    prefetch_batches: int = 4
    """Batches that wait at each worker."""
    groups_per_attempt: int = 20_000
    """Read tasks planned at a time; bounds the driver's and Ray's memory. More are planned when they are used up."""
    no_progress_timeout_s: float = 7200.0
    """Stop when no data move for this long. Ray's own default, 30 min, ends jobs that wait for spot machines."""

    def __post_init__(self) -> None:
        between("group_samples", self.group_samples, 1, 1_000_000)
        at_least("prefetch_batches", self.prefetch_batches, 0)
        at_least("groups_per_attempt", self.groups_per_attempt, 1)
        above("no_progress_timeout_s", self.no_progress_timeout_s, 0)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """`[checkpoints]`: what is kept on the run's storage."""

    __pydantic_config__ = STRICT

    every_samples: int | None = None
    """Samples between checkpoints: the most that a crash repeats. None: a twentieth of samples_seen."""
    keep: int = 2
    """Latest checkpoints kept, >= 1."""
    export_at_samples: tuple[int, ...] = ()
    """The network as it is after these many samples is kept as well, in open_clip's format."""

    def __post_init__(self) -> None:
        at_least("every_samples", self.every_samples, 1)
        at_least("keep", self.keep, 1)


@dataclass(frozen=True, kw_only=True)
class Logs:
    """`[logs]`: where the curves go. `log/*.jsonl` in the run is always written."""

    __pydantic_config__ = STRICT

    every_steps: int = 10
    """Steps between two lines of the log, >= 1."""
    tensorboard: bool = True
    """Event files in the run's `tensorboard/`."""
    wandb_project: str | None = None
    """Also to Weights & Biases (needs the wandb package and its environment)."""
    mlflow_uri: str | None = None
    """Also to this MLflow tracking server (needs the mlflow package)."""

    def __post_init__(self) -> None:
        at_least("every_steps", self.every_steps, 1)


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """A whole training run. Its result is `network/`, which dfn-ray filter and open_clip load alike."""

    __pydantic_config__ = STRICT

    run_uri: Target
    """Where the run lives: a folder or object prefix; created, or resumed when it holds this recipe's run."""
    sources: tuple[Source, ...]
    """`[[sources]]`: what to train on, at least one."""
    model: Network
    """What to start from; `random_weights_seed` starts from scratch. `precision = "bf16"` runs the forward in autocast."""
    samples_seen: int
    """Samples in all, repeats counted."""
    batch_size: int
    """Samples of one optimizer step over all workers: the contrastive batch."""
    scale: Literal["small", "medium", "large", "xlarge", "dfn5b"] | None = None
    """DataComp's scales (small: 12.8 M samples, ..., xlarge: 12.8 B) or DFN-5B's ViT-H (39 B)."""
    accumulate: int = 1
    """Micro-batches per step on a worker. The contrastive batch stays whole (open_clip's accum_freq)."""
    loss: Literal["clip", "siglip"] = "clip"
    """Softmax over the whole batch (CLIP), or a sigmoid for each pair (SigLIP)."""
    seed: int = 0
    """Of order, augmentation and templates."""
    ensemble_alpha: float | None = None
    """WiSE-FT: the result is (1 - alpha) * start + alpha * trained, 0 to 1. None: trained alone."""
    max_failed_fraction: float = 0.25
    """As in filtering: the run stops when more than this share of a source's samples failed in reading (judged before
    workers start), or of all samples in reading and decoding (judged from 10,000 samples on, and at the end), 0 to 1."""
    max_bad_shard_fraction: float = 0.25
    """As in filtering: the run stops when more than this share of a source's shards is bad, 0 to 1."""
    accept_versions: bool = False
    """Go on with a run whose last attempt had other versions of torch, open_clip, pillow, simplejpeg, or another major
    version of numpy."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """AdamW and its schedule."""
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    """How images are varied; None in Python: not at all."""
    decode: Decode = field(default_factory=Decode)
    """How images are decoded, as in filtering."""
    workers: Workers = field(default_factory=Workers)
    """The processes that train."""
    feed: Feed = field(default_factory=Feed)
    """How samples get to them."""
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    """How often, and how many are kept."""
    logs: Logs = field(default_factory=Logs)
    """Where figures go."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources: need at least one [[sources]], got none")
        if len({source.weight is None for source in self.sources}) > 1:
            raise ValueError("sources: need a weight for all or for none, got some")
        at_least("samples_seen", self.samples_seen, 1)
        at_least("batch_size", self.batch_size, 1)
        at_least("accumulate", self.accumulate, 1)
        between("max_failed_fraction", self.max_failed_fraction, 0.0, 1.0)
        between("max_bad_shard_fraction", self.max_bad_shard_fraction, 0.0, 1.0)
        if self.samples_seen < self.batch_size:
            raise ValueError(
                f"samples_seen: need at least one batch of {self.batch_size}, got {self.samples_seen}"
            )
        if self.workers.max_size * self.accumulate > self.batch_size:
            raise ValueError(
                f"batch_size: need a sample for each of {self.workers.max_size} workers x {self.accumulate} "
                f"micro-batches, got {self.batch_size}"
            )
        if self.model.precision == "fp16":
            raise ValueError("model.precision: need fp32 or bf16 for training, got 'fp16'")
        if self.ensemble_alpha is not None:
            between("ensemble_alpha", self.ensemble_alpha, 0.0, 1.0)
            if self.model.random_weights_seed is not None:
                raise ValueError(
                    "ensemble_alpha: needs weights to start from, got random_weights_seed"
                )

    @property
    def samples_between_checkpoints(self) -> int:
        """As `[checkpoints]` says, or a twentieth of the run."""
        return self.checkpoints.every_samples or max(1, self.samples_seen // 20)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_in_scale(cls, value: Any) -> Any:
        """The recipe's own values over those of its scale."""
        values = value.kwargs if isinstance(value, ArgsKwargs) else value
        if not isinstance(values, Mapping) or values.get("scale") not in SCALES:
            return value
        filled = {**SCALES[values["scale"]], **values}
        for section in ("optimizer", "model"):
            own = values.get(section)
            if own is None or isinstance(own, Mapping):
                filled[section] = _over(SCALES[values["scale"]][section], own or {})
        return filled


def _over(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A section's defaults under its own values; weights to start from replace random ones."""
    starts = any(own.get(key) is not None for key in ("pretrained", "random_weights_seed", "model"))
    kept = {k: v for k, v in defaults.items() if not (starts and k == "random_weights_seed")}
    return {**kept, **own}


def _scale(model: str, **values: Any) -> dict[str, Any]:
    sizes = {name: values.pop(name) for name in ("samples_seen", "batch_size")}
    start = {"model": model, "random_weights_seed": 0, "precision": "bf16"}
    return {"model": start, **sizes, "optimizer": {"weight_decay": 0.2, **values}}


_USUAL = {"learning_rate": 5e-4, "warmup_steps": 500, "beta2": 0.98}

SCALES: Mapping[str, Mapping[str, Any]] = {
    "small": _scale("ViT-B-32", samples_seen=12_800_000, batch_size=4096, **_USUAL),
    "medium": _scale("ViT-B-32", samples_seen=128_000_000, batch_size=4096, **_USUAL),
    "large": _scale("ViT-B-16", samples_seen=1_280_000_000, batch_size=8192, **_USUAL),
    "xlarge": _scale(
        "ViT-L-14",
        samples_seen=12_800_000_000,
        batch_size=90_112,
        learning_rate=1e-3,
        warmup_steps=10_000,
        beta2=0.95,
    ),
    "dfn5b": _scale(
        "ViT-H-14",
        samples_seen=39_000_000_000,
        batch_size=79_872,
        learning_rate=2e-3,
        warmup_steps=10_000,
        beta2=0.95,
        weight_decay=0.1,
    ),
}
"""DataComp's scale_configs.py (table 14 of the paper) and table 7 of the DFN paper."""
