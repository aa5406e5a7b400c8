"""The sections on networks: `[[networks]]`, their input `[decode]`, their actors `[scorers]`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Literal

from dfn_ray.config.checks import (
    CustomResources,
    Identifier,
    NodeLabels,
    NonNegativeNumber,
    Positive,
    PositiveNumber,
    Uri,
)
from dfn_ray.config.sections import require_rules, section


@section
class Network:
    """`[[networks]]`: a filtering network.

    Every setting except `name` changes scores and is part of the fingerprint.
    """

    model: Uri
    """An open_clip architecture (`ViT-B-32`), `hf-hub:org/repo`, or `local-dir:PATH`: a repository
    or folder in open_clip's layout (open_clip_config.json), or a CLIP, SigLIP or fixed-resolution
    SigLIP 2 in transformers' layout (config.json)."""
    name: Identifier = "dfn"
    """Suffix of the score column, `score_<name>`: letters, digits, `_`."""
    pretrained: Uri | None = None
    """A pretrained tag of open_clip, or the path or URI of a checkpoint. If it is None and `model`
    is an architecture, `random_weights_seed` is required: the weights are random."""
    random_weights_seed: int | None = None
    """Seed of random weights, any integer of 64 bits: for benchmarks, tests and training from
    scratch."""
    quick_gelu: bool | None = None
    """QuickGELU activations in place of GELU. None: as model and tag define it. A checkpoint file
    does not define it: DFN's and OpenAI's weights need `true`."""
    resize_mode: Literal["shortest", "squash", "longest"] | None = None
    """`shortest` resizes the shorter side and crops the centre, `squash` ignores the aspect ratio,
    `longest` resizes the longer side and pads. None: as model and tag define it."""
    interpolation: Literal["bicubic", "bilinear"] | None = None
    """Interpolation of the resize. None: as model and tag define it."""
    caption_cleaning: Literal["own", "open_clip"] = "own"
    """For networks in transformers' layout. `own`: the tokens of their own tokenizer, which neither
    repairs text nor unescapes HTML. `open_clip`: both are done first, as open_clip does for all
    other networks, and for SigLIPs punctuation and case are removed."""
    normalization: Literal["openai", "imagenet", "half"] | None = None
    """Mean and standard deviation that normalise pixels: OpenAI's CLIP, ImageNet, or 0.5 and 0.5
    (SigLIP). None: as model and tag define it; OpenAI's for a checkpoint path."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the forward pass. The cosine is always computed in float32."""

    def __post_init__(self) -> None:
        require_rules(self._broken_rules())

    def _broken_rules(self) -> Iterator[str]:
        has_weights = ":" in self.model
        if has_weights and self.pretrained:
            got = f"got {self.pretrained!r} as well"
            yield f"pretrained: {self.model!r} has weights of its own, {got}"
        if not has_weights and (self.pretrained is None) == (self.random_weights_seed is None):
            got = "neither" if self.pretrained is None else "both"
            yield (
                "pretrained: need a tag, a path or a URI (or random_weights_seed, for benchmarks), "
                f"got {got}{self._hint()}"
            )

    def _hint(self) -> str:
        """Advice for users who name a repository as transformers does.

        Architectures have a number behind a slash (`ViT-L/14`).
        """
        _, slash, rest = self.model.partition("/")
        is_repository = slash and self.pretrained is None and not rest[:1].isdecimal()
        return (
            f". For a repository on the hub, model is hf-hub:{self.model}" if is_repository else ""
        )


@section
class Decode:
    """`[decode]`: from image bytes to pixels at the network's input size, in CPU tasks."""

    mode: Literal["exact", "fast"] = "exact"
    """`exact`: Pillow, the pixels that open_clip's own transform computes. `fast`: libjpeg's scaled
    decode for JPEGs, about twice as fast; scores drift slightly (docs/experiments.md), and damaged
    JPEGs are decoded exactly and counted. In both modes, float and 32-bit integer greyscale is
    scaled by the range of its values, 0..1, 0..255 or 0..65535; any other range fails with
    `unsupported_pixels`."""
    on_truncated: Literal["score", "fail"] = "score"
    """For an image of any format that ends early. `score`: score the decoded part, as DataComp's
    own scorer does, and count it. `fail`: fail with `truncated_image`. An image of which no pixel
    can be decoded fails in both modes (WebP and AVIF decode as a whole or not at all), and so does
    any other damage: `decode_error`."""
    max_pixels: Positive = 89_478_485
    """Pixels of an image by its header, >= 1. Images with more fail before decoding. Default:
    Pillow's decompression bomb limit."""
    timeout_s: PositiveNumber = 60.0
    """Seconds for a single image, > 0. A slower one fails with `decode_timeout`."""
    placement: Literal["beside", "apart"] = "beside"
    """`beside`: worker processes of the scorers read and decode, so that pixels never leave a node.
    `apart`: tasks do, on any node, and pixels travel through Ray's object store; for clusters with
    few CPUs beside many GPUs. Filtering only: evaluation decodes apart."""
    tasks: Positive = 8
    """Tasks that decode for one scorer at a time, >= 1, with `placement = "apart"`."""
    cpus: PositiveNumber = 1.0
    """CPUs that a task reserves for reading and decoding, > 0. A node runs as many tasks in
    parallel as it has CPUs for: use less than 1 if storage is slow and readers wait, more if memory
    is short (README, Object storage). Workers beside a scorer are part of `scorers.cpus`."""
    labels: NodeLabels = field(default_factory=dict)
    """Ray labels of the nodes that read, decode and commit, e.g. `{dfn-role = "decode"}`, so that
    nodes of scorers only score. Keys and values: letters, digits and `. _ - /`."""
    resources: CustomResources = field(default_factory=dict)
    """Custom Ray resources that such a task reserves: amount by name, > 0."""


@section
class Scorers:
    """`[scorers]`: the actor pool that runs the networks."""

    min_size: Positive = 1
    """Number of actors at the start, 1 to `max_size`."""
    max_size: Positive = 1
    """Largest number of actors, >= `min_size`. The actor pool grows with its backlog."""
    gpus: NonNegativeNumber = 0.0
    """GPUs reserved per actor, >= 0, fractions allowed. 0 runs on the CPU."""
    cpus: NonNegativeNumber = 0.0
    """CPUs reserved per actor, >= 0; in filtering, each runs a process that reads and decodes. 0
    reserves none; as many processes run as the actor's share of its node has CPUs: by GPUs, or on
    the CPU by `max_size`."""
    labels: NodeLabels = field(default_factory=dict)
    """Ray labels of the nodes that score, e.g. `{dfn-role = "score"}`. Keys and values: letters,
    digits and `. _ - /`."""
    resources: CustomResources = field(default_factory=dict)
    """Custom Ray resources that an actor reserves: amount by name, > 0."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the forward pass; never chosen automatically. `cuda` needs `gpus > 0`."""
    batch_size: Positive = 256
    """Samples in one forward pass, >= 1. A batch never crosses a chunk, so values above
    `pool.chunk_rows` have no effect."""
    threads: Positive | None = None
    """CPU threads of one actor's forward pass, >= 1. None: the CPUs of the driver's machine; with
    `cuda`, those of the actor's node. On the CPU it changes the last bits of scores, and is part of
    the fingerprint."""
    compile: bool = False
    """torch.compile of the towers."""
    keep_embeddings: bool = False
    """Storage of image and text embeddings too, as float16."""

    def __post_init__(self) -> None:
        require_rules(self._broken_rules())

    def _broken_rules(self) -> Iterator[str]:
        if self.min_size > self.max_size:
            got = f"{self.min_size} and {self.max_size}"
            yield f"min_size: need 1 <= min_size <= max_size, got {got}"
        if self.device == "cuda" and self.gpus == 0:
            yield 'gpus: device = "cuda" needs gpus > 0, got 0'
