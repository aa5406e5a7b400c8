"""The recipe of a filtering run: pool, networks, rules, selection, scorers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dfn_ray.config.captions import Captions
from dfn_ray.config.checks import STRICT, Target, Uri, Uris, above, at_least, between, placement
from dfn_ray.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class Pool:
    """`[pool]`: which image-text pairs there are."""

    __pydantic_config__ = STRICT

    uri: Uris
    """Shards: URIs, globs (`*`), braces (`{00000..00099}`) or folders; one or several."""
    format: Literal["auto", "webdataset", "parquet", "folder"] = "auto"
    """`auto` looks into the first bytes of each shard; img2dataset and DataComp pools are one of these two.
    `folder`: `uri` is one or several folders of class folders of image files; a class folder is a shard."""
    caption: Literal["text", "lines", "list", "label"] = "text"
    """`text`: one caption, whatever it holds. `lines`: several, one a line. `list`: several, none of them split: members
    `.txt`, `.0.txt`, `.1.txt`, ..., columns `caption_0`, `caption_1`, ..., or a text that is a JSON array. Under both also an
    array in a JSON member (`caption`, `text`, `captions` or `texts`) and a list column of Parquet, each item a caption.
    Blank and null captions are none; one that is not UTF-8 fails its sample, and so do more than 256 (`too_many_captions`).
    `label`: a class number, 0 or more: a `cls` member, a `cls` or `label` column, a class folder's place."""
    image_column: str | None = None
    """Parquet only: the column with the image bytes; None finds `image`, `jpg`, `png`, `webp`, `jpeg`."""
    text_column: str | None = None
    """Parquet only: the column with the caption; None finds `text`, `caption`, `txt`, or for labels `cls`, `label`. For
    `caption = "list"` also several, `alt_*` for `alt_0`, `alt_1`, ...; there None prefers a list column, `captions` and
    `texts` too, then `text_*`, `caption_*`, `txt_*`."""
    uid: Literal["auto", "derive"] = "auto"
    """`auto`: the sample's own `uid` (32 hex digits) where it has one, else derived from shard and key.
    `derive`: always derived."""
    verify_page_checksums: bool = True
    """Parquet only: a page whose bytes do not match its checksum, where it has one, costs its row group. false is for
    files of writers that get checksums wrong."""
    chunk_rows: int = 256
    """Samples in a chunk, 1 to 65,536. The unit of work, of commit and of decoding isolation; batches never
    cross it. A task that decodes holds the pixels of a chunk three times: README, Object storage, has the sum."""
    chunk_bytes: int = 64 * 2**20
    """A chunk also ends when its images, captions, keys and metadata exceed this many bytes, 1 MiB to 1 GiB."""
    max_image_bytes: int = 64 * 2**20
    """Larger members fail with `image_too_large` without being read into memory."""
    max_caption_bytes: int = 64 * 2**10
    """Longer captions fail with `caption_too_long`; several captions of a sample count together. CLIP reads about 300 bytes
    of one."""
    give_up_unreachable: bool = False
    """Filtering: commit shards that a store still does not give after `execution.attempts` as `unreachable_shard`, which
    counts against `execution.max_bad_shard_fraction`. `false` stops the run and names them; running again goes on."""

    def __post_init__(self) -> None:
        if not self.uri:
            raise ValueError("uri: need at least one URI, got none")
        between("chunk_rows", self.chunk_rows, 1, 65_536)
        between("chunk_bytes", self.chunk_bytes, 2**20, 2**30)
        between("max_image_bytes", self.max_image_bytes, 2**10, 2**30)
        between("max_caption_bytes", self.max_caption_bytes, 1, 2**24)

    @property
    def several_captions(self) -> bool:
        """True if samples are read with a list of captions."""
        return self.caption in ("lines", "list")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """`[rules]`: metadata rules, applied before decoding; None turns a rule off.

    DataComp's basic filter without its language rule is `min_caption_words = 3, min_caption_chars = 6,
    min_image_side = 200, max_aspect_ratio = 3.0` (apply_filter.py: more than 2 words, more than 5 characters,
    smallest side >= 200, largest / smallest <= 3; on the original sizes).
    """

    __pydantic_config__ = STRICT

    min_caption_words: int | None = None
    """Fewest words, as `str.split` counts them."""
    min_caption_chars: int | None = None
    """Fewest characters (Unicode code points)."""
    min_image_side: int | None = None
    """Smallest width or height in pixels; `original_width/height` of the metadata where present, else the
    image's own."""
    max_aspect_ratio: float | None = None
    """Largest longer side / shorter side."""

    def __post_init__(self) -> None:
        at_least("min_caption_words", self.min_caption_words, 0)
        at_least("min_caption_chars", self.min_caption_chars, 0)
        at_least("min_image_side", self.min_image_side, 1)
        at_least("max_aspect_ratio", self.max_aspect_ratio, 1.0)


@dataclass(frozen=True, kw_only=True)
class Decode:
    """`[decode]`: from image bytes to pixels at the network's size, in CPU tasks."""

    __pydantic_config__ = STRICT

    mode: Literal["exact", "fast"] = "exact"
    """`exact`: Pillow, the pixels that open_clip's own transform sees. `fast`: libjpeg's scaled decode for
    JPEGs, about twice as fast, scores drift slightly (docs/experiments.md); damaged JPEGs are decoded exactly, and
    counted. Under both, float and 32-bit integer greyscale is scaled by the range of its values, 0..1, 0..255 or
    0..65535; any other range fails with `unsupported_pixels`."""
    on_truncated: Literal["score", "fail"] = "score"
    """An image that ends early, of any format: `score` what is there (as DataComp's own scorer does) and count it, or
    `fail` it with `truncated_image`. One of which nothing was decoded fails under both (WebP and AVIF are decoded whole
    or not at all), and so does damage that is no early end: `decode_error`."""
    max_pixels: int = 89_478_485
    """Images with more pixels in their header fail before decoding. Default: Pillow's decompression bomb limit."""
    timeout_s: float = 60.0
    """A single image that takes longer fails with `decode_timeout`."""
    cpus: float = 1.0
    """CPUs a task reserves that reads and decodes, > 0. A node runs as many of them side by side as it has CPUs for:
    less than 1 where storage is slow and readers wait, more where their memory (README, Object storage) is short."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Only nodes with these Ray labels read, decode and commit, e.g. `{dfn-role = "decode"}`: a node of scorers then
    scores and does nothing else."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom Ray resources that such a task reserves, by name."""

    def __post_init__(self) -> None:
        at_least("max_pixels", self.max_pixels, 1)
        above("timeout_s", self.timeout_s, 0)
        above("cpus", self.cpus, 0)
        placement(self.labels, self.resources)


@dataclass(frozen=True, kw_only=True)
class Network:
    """`[[networks]]`: a filtering network. Everything here but `name` changes scores and is fingerprinted."""

    __pydantic_config__ = STRICT

    model: Uri
    """An open_clip architecture (`ViT-B-32`), `hf-hub:org/repo`, or `local-dir:PATH`: a repository or folder in open_clip's
    layout (open_clip_config.json), or a CLIP, SigLIP or fixed-resolution SigLIP 2 in transformers' (config.json)."""
    name: str = "dfn"
    """Names the score column, `score_<name>`: letters, digits, `_`."""
    pretrained: Uri | None = None
    """open_clip's pretrained tag, or the path or URI of a checkpoint. None with an architecture name means
    random weights and must be asked for by `random_weights_seed`."""
    random_weights_seed: int | None = None
    """Random weights from this seed: for benchmarks and tests."""
    quick_gelu: bool | None = None
    """None: what model and tag say. A checkpoint path carries no such flag: DFN and OpenAI weights need `true`."""
    resize_mode: Literal["shortest", "squash", "longest"] | None = None
    """None: what model and tag say; `shortest` resizes the shorter side and crops the centre."""
    interpolation: Literal["bicubic", "bilinear"] | None = None
    """None: what model and tag say."""
    caption_cleaning: Literal["own", "open_clip"] = "own"
    """Of networks in transformers' layout: `own` gives the tokens of their own tokenizer, which neither repairs text nor
    unescapes HTML; `open_clip` does both first, as open_clip does for all other networks, and for SigLIPs removes
    punctuation and case."""
    normalization: Literal["openai", "imagenet", "half"] | None = None
    """Mean and standard deviation that pixels are normalised by: OpenAI's CLIP, ImageNet, or 0.5 and 0.5 (SigLIP). None:
    what model and tag say; OpenAI's for a checkpoint path."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the forward. The cosine itself is always taken in float32."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name: need letters, digits and _, got {self.name!r}")
        has_schema = ":" in self.model
        if has_schema and self.pretrained:
            raise ValueError(
                f"pretrained: {self.model!r} brings its own weights, got {self.pretrained!r} as well"
            )
        if not has_schema and (self.pretrained is None) == (self.random_weights_seed is None):
            raise ValueError(
                "pretrained: need a tag, a path or a URI (or random_weights_seed, for benchmarks), got "
                + ("neither" if self.pretrained is None else "both")
                + self._hint()
            )

    def _hint(self) -> str:
        """For who names a repository as transformers takes it; architectures have a number behind a slash (`ViT-L/14`)."""
        _, slash, rest = self.model.partition("/")
        is_repository = slash and self.pretrained is None and not rest[:1].isdecimal()
        return (
            f". Of a repository on the hub, model is hf-hub:{self.model}" if is_repository else ""
        )


@dataclass(frozen=True, kw_only=True)
class Scorers:
    """`[scorers]`: the actor pool that runs the networks."""

    __pydantic_config__ = STRICT

    min_size: int = 1
    """Actors at the start, >= 1."""
    max_size: int = 1
    """Actors at most; the pool grows with its backlog."""
    gpus: float = 0.0
    """GPUs per actor, fractions allowed; 0 runs on the CPU."""
    cpus: float = 0.0
    """CPUs per actor reserved in Ray. 0 by default: two actors at 1 CPU starve the readers of a 2-core machine."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Only nodes with these Ray labels score, e.g. `{dfn-role = "score"}`."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom Ray resources that an actor reserves, by name."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the forward runs; stated, never guessed. `cuda` needs `gpus > 0`."""
    batch_size: int = 256
    """Samples in one forward, >= 1; a batch never crosses a chunk, so more than `pool.chunk_rows` has no effect."""
    threads: int | None = None
    """CPU threads of one actor's forward. None: the CPUs of the driver's machine; with `cuda`, of the actor's node.
    On the CPU it changes scores in the last bits, so there the number is fingerprinted."""
    compile: bool = False
    """torch.compile of the towers."""
    keep_embeddings: bool = False
    """Also store image and text embeddings, as float16."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_size <= self.max_size:
            raise ValueError(
                f"min_size: need 1 <= min_size <= max_size, got {self.min_size} and {self.max_size}"
            )
        at_least("gpus", self.gpus, 0)
        at_least("cpus", self.cpus, 0)
        at_least("batch_size", self.batch_size, 1)
        at_least("threads", self.threads, 1)
        placement(self.labels, self.resources)
        if self.device == "cuda" and self.gpus == 0:
            raise ValueError('gpus: device = "cuda" needs gpus > 0, got 0')


@dataclass(frozen=True, kw_only=True)
class Select:
    """`[select]`: which scored samples are kept. Exactly one of fraction, count and threshold."""

    __pydantic_config__ = STRICT

    keep_fraction: float | None = None
    """Keep floor(keep_fraction * N) samples, 0 to 1. The DFN paper keeps 0.15 of the pool."""
    keep_count: int | None = None
    """Keep exactly this many, or all scored samples if there are fewer."""
    threshold: float | None = None
    """Keep every score >= threshold, -1 to 1."""
    of: Literal["pool", "readable", "scored"] = "pool"
    """N of keep_fraction: all samples; those that did not fail; those with a score."""
    network: str | None = None
    """Whose score decides; None: the first network."""

    def __post_init__(self) -> None:
        given = [
            name
            for name in ("keep_fraction", "keep_count", "threshold")
            if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise ValueError(
                "keep_fraction: need exactly one of keep_fraction, keep_count and threshold, got "
                + (" and ".join(given) or "none")
            )
        if self.keep_fraction is not None:
            between("keep_fraction", self.keep_fraction, 0.0, 1.0)
        if self.threshold is not None:
            between("threshold", self.threshold, -1.0, 1.0)
        at_least("keep_count", self.keep_count, 0)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """`[calibration]`: a first look at the scores, so that bytes travel only where they can matter.

    The result does not depend on it; only the bytes moved do.
    """

    __pydantic_config__ = STRICT

    shards: int = 256
    """Shards looked into."""
    samples: int = 65_536
    """Samples scored, spread over those shards."""
    confidence: float = 0.999
    """Of the bootstrap interval for the threshold, 0.5 to 0.999999."""

    def __post_init__(self) -> None:
        at_least("shards", self.shards, 1)
        at_least("samples", self.samples, 1)
        between("confidence", self.confidence, 0.5, 0.999999)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """`[execution]`: how the work is cut up and when to give up. Changes no score and no selection."""

    __pydantic_config__ = STRICT

    chunks_per_part: int = 64
    """Chunks in one output part, >= 1. A crash costs at most the chunks of the parts under way."""
    wave_shards: int = 4096
    """Shards planned at a time, >= 1; bounds the driver's and Ray's memory."""
    attempts: int = 3
    """Times a shard whose tasks died is tried again before it is given up, >= 1."""
    accept_versions: bool = False
    """Go on with a run whose last attempt had other versions of torch, open_clip, pillow, simplejpeg, or another major
    version of numpy: its scores can then differ in their last digits. The attempt records which."""
    accept_changed_shards: bool = False
    """Resume although shards have other sizes than the run listed: they are listed anew. What is committed of complete
    ones stays as it is; one that is committed in part is refused even so, since its rows would mix two contents."""
    max_failed_fraction: float = 0.25
    """Error budget: the run stops when more than this share of the samples failed."""
    max_bad_shard_fraction: float = 0.25
    """Error budget: the run stops when more than this share of the shards is bad."""
    budget_after_samples: int = 10_000
    """The error budget is judged once this many samples are read, and at the end."""
    stall_timeout_s: float = 1800.0
    """Score what is left anew when nothing moves for this long though there are nodes; a chunk must take less."""
    no_progress_timeout_s: float = 7200.0
    """Stop when nothing moves for this long because nodes are waited for, spot GPUs for instance."""
    max_hours: float | None = None
    """Budget: stop, resumable, once scoring has taken this long, all attempts together. `--budget 2h` sets it."""

    def __post_init__(self) -> None:
        for name in ("chunks_per_part", "wave_shards", "attempts"):
            at_least(name, getattr(self, name), 1)
        between("max_failed_fraction", self.max_failed_fraction, 0.0, 1.0)
        between("max_bad_shard_fraction", self.max_bad_shard_fraction, 0.0, 1.0)
        for name in ("stall_timeout_s", "no_progress_timeout_s"):
            above(name, getattr(self, name), 0)
        if self.max_hours is not None:
            above("max_hours", self.max_hours, 0)


@dataclass(frozen=True, kw_only=True)
class Prices:
    """`[prices]`: what cluster and storage cost, for `dfn-ray plan` and for budgets. Changes no result.

    A node's price belongs to its GPUs and its CPU cores: of one with 8 GPUs and 96 cores at 32 an hour, say,
    `gpu_hour = 3.40` and `cpu_hour = 0.05`.
    """

    __pydantic_config__ = STRICT

    currency: str = "USD"
    """In printouts."""
    gpu_hour: float = 0.0
    """One GPU for an hour."""
    cpu_hour: float = 0.0
    """One CPU, as Ray counts them, for an hour."""
    get_per_1000: float = 0.0
    """1,000 read requests (GET, HEAD) to the object store."""
    put_per_1000: float = 0.0
    """1,000 write and list requests (PUT, LIST)."""
    gb_read: float = 0.0
    """10^9 bytes of the pool read: transfer out of its region or cloud."""
    gb_month: float = 0.0
    """10^9 bytes of output kept for a month."""
    budget: float | None = None
    """Stop, resumable, once the nodes have cost this much, all attempts together. `--budget 12.50` sets it."""

    def __post_init__(self) -> None:
        for name in (
            "gpu_hour", "cpu_hour", "get_per_1000", "put_per_1000", "gb_read", "gb_month",
        ):  # fmt: skip
            at_least(name, getattr(self, name), 0)
        if self.budget is None:
            return
        above("budget", self.budget, 0)
        if self.gpu_hour == self.cpu_hour == 0:
            raise ValueError(
                "budget: needs gpu_hour or cpu_hour to count by, got 0 for both; hours go without: --budget 2h"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole filtering run."""

    __pydantic_config__ = STRICT

    run_uri: Target
    """Where the run lives: a folder or object prefix; created, or resumed when it holds this recipe's run."""
    pool: Pool
    """What is filtered."""
    networks: tuple[Network, ...] = ()
    """What scores, at least one; none are needed where a uid list selects."""
    rules: Rules = field(default_factory=Rules)
    """What is rejected by its metadata."""
    decode: Decode = field(default_factory=Decode)
    """How images are decoded."""
    captions: Captions = field(default_factory=Captions)
    """How pairs with several captions are scored."""
    scorers: Scorers = field(default_factory=Scorers)
    """The actors that run the networks."""
    select: Select = field(default_factory=lambda: Select(keep_fraction=0.15))
    """What is kept. Default: the best 15 %, the share that DFN-2B is of its pool."""
    calibration: Calibration = field(default_factory=Calibration)
    """How the bounds are found between which bytes must wait for the selection."""
    execution: Execution = field(default_factory=Execution)
    """Sizes of waves and parts, attempts, and when to stop."""
    prices: Prices | None = None
    """None: `dfn-ray plan` shows no money."""

    def __post_init__(self) -> None:
        names = [network.name for network in self.networks]
        if len(set(names)) != len(names):
            raise ValueError(f"networks: need distinct names, got {', '.join(names)}")
        if self.select.network is not None and self.select.network not in names:
            raise ValueError(
                f"select.network: need one of {', '.join(names)}, got {self.select.network!r}"
            )
        prices = self.prices
        if prices and prices.budget is not None and self.scorers.gpus and not prices.gpu_hour:
            raise ValueError("prices.gpu_hour: a budget for GPU scorers needs it, got 0")

    @property
    def deciding_network(self) -> str:
        """Name of the network whose score selects. Raises RecipeError when the recipe has none."""
        return self.select.network or self.require_networks()[0].name

    def require_networks(self) -> tuple[Network, ...]:
        """The networks of a recipe that scores. Raises RecipeError when it has none."""
        if not self.networks:
            raise RecipeError(["networks: need at least one [[networks]], got none"])
        return self.networks
