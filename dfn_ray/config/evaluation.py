"""The recipe of an evaluation: the network and the sets it is tried on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dfn_ray.config.checks import STRICT, Target, Texts, above, between
from dfn_ray.config.filtering import Decode, Network, Pool, Scorers


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """`[[sets]]`: labelled images, or images with captions, and what is asked of the network there."""

    __pydantic_config__ = STRICT

    name: str
    """In results and file names. DataComp's keys (`imagenet1k`, `vtab/caltech101`, also with `wds/` before them) or
    names (`ImageNet 1k`) bring its main metric and its groups."""
    pool: Pool
    """Image folders (`format = "folder"`), tars, Parquet, or the root of a set in CLIP_benchmark's WebDataset layout.
    `caption` is set by the task: `label`, or for retrieval `lines` unless it is `list`."""
    task: Literal["zeroshot_classification", "zeroshot_retrieval"] = "zeroshot_classification"
    """CLIP_benchmark's names. Retrieval takes every caption of an image."""
    split: str = "test"
    """Of a root in CLIP_benchmark's layout: the folder whose tars are read."""
    classnames: Texts | None = None
    """One name per class, in label order; or a single path or URI of a file with one a line; or `imagenet`. None:
    what CLIP_benchmark's layout says, or the names of the class folders."""
    templates: Texts | None = None
    """Texts with `{}` or `{c}`; or a single path or URI of a file; or `openai` (80) or `simple` (7). None: what
    CLIP_benchmark's layout says, else `openai`."""
    language: str = "en"
    """Only in results and file names."""

    def __post_init__(self) -> None:
        for name in ("name", "split", "language"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name}: need a text, got {getattr(self, name)!r}")
        if self.task == "zeroshot_retrieval" and (self.classnames or self.templates):
            raise ValueError("classnames: retrieval has no classes, got classnames or templates")


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe:
    """A whole evaluation. Results are files in `eval/` of the run and lines of `eval_results.jsonl`."""

    __pydantic_config__ = STRICT

    run_uri: Target
    """Where results go: a folder or object prefix; that of a training run, or one of its own."""
    network: Network
    """What is evaluated."""
    sets: tuple[EvaluationSet, ...]
    """`[[sets]]`: on what, at least one, with distinct names."""
    scorers: Scorers = field(default_factory=Scorers)
    """The actors that embed. `keep_embeddings` has no effect."""
    decode: Decode = field(default_factory=Decode)
    """How images are decoded, as in filtering."""
    max_failed_fraction: float = 0.01
    """A set of which more images than this share fail, 0 to 1, gives no result: it would be that of another set."""
    no_progress_timeout_s: float = 7200.0
    """Stop when nothing moves for this long. Ray's own default, 30 min, ends jobs that wait for spot GPUs."""

    def __post_init__(self) -> None:
        if not self.sets:
            raise ValueError("sets: need at least one [[sets]], got none")
        slugs = [item.name.replace("/", "_") for item in self.sets]
        twice = next((slug for slug in slugs if slugs.count(slug) > 1), None)
        if twice is not None:
            raise ValueError(f"sets: need distinct names, got {twice!r} twice")
        between("max_failed_fraction", self.max_failed_fraction, 0.0, 1.0)
        above("no_progress_timeout_s", self.no_progress_timeout_s, 0)
