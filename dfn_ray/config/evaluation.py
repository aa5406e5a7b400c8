"""The recipe of an evaluation, `dfn-ray evaluate`: a network and the sets it is evaluated on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from dfn_ray.config.checks import Fraction, Name, PositiveNumber, Target, Texts
from dfn_ray.config.networks import Decode, Network, Scorers
from dfn_ray.config.pool import Pool
from dfn_ray.config.sections import require_rules, section


@section
class EvaluationSet:
    """`[[sets]]`: labelled images or images with captions, and the task on them."""

    name: Name
    """Name in results and file names, not blank. DataComp's keys (`imagenet1k`, `vtab/caltech101`,
    also with the prefix `wds/`) and names (`ImageNet 1k`) select its main metric and its groups."""
    pool: Pool
    """Image folders (`format = "folder"`), tars, Parquet, or the root of a set in CLIP_benchmark's
    WebDataset layout. The task sets `caption`: `label`, or for retrieval `lines` unless it is
    `list`."""
    task: Literal["zeroshot_classification", "zeroshot_retrieval"] = "zeroshot_classification"
    """Task, by CLIP_benchmark's names. Retrieval uses every caption of an image."""
    split: Name = "test"
    """Folder whose tars are read, for a root in CLIP_benchmark's layout. Not blank."""
    classnames: Texts | None = None
    """One name per class, in label order; or the path or URI of a file with one name per line; or
    `imagenet`. None: the class names in CLIP_benchmark's layout, or the names of the class
    folders."""
    templates: Texts | None = None
    """Texts with `{}` or `{c}`; or the path or URI of a file with one per line; or `openai` (80) or
    `simple` (7). None: the templates in CLIP_benchmark's layout, else `openai`."""
    language: Name = "en"
    """Language in results and file names, not blank. It has no other effect."""

    def __post_init__(self) -> None:
        require_rules(self._broken_rules())

    def _broken_rules(self) -> Iterator[str]:
        if self.task == "zeroshot_retrieval" and (self.classnames or self.templates):
            yield "classnames: retrieval uses neither classnames nor templates; remove them"


@section
class EvaluateRecipe:
    """An evaluation. Its results are in `eval/` and `eval_results.jsonl` of the run."""

    run_uri: Target
    """Folder or object prefix for results: that of a training run, or one of its own."""
    network: Network
    """`[network]`: the network to evaluate."""
    sets: Annotated[tuple[EvaluationSet, ...], Field(min_length=1)]
    """`[[sets]]`: the sets to evaluate on, at least one, with distinct names."""
    scorers: Scorers = field(default_factory=Scorers)
    """`[scorers]`: the actors that embed. `keep_embeddings` has no effect."""
    decode: Decode = field(default_factory=Decode)
    """`[decode]`: decoding of images, as in filtering."""
    max_failed_fraction: Fraction = 0.01
    """Largest fraction of a set's images that may fail, 0 to 1. A set with more failures gets no
    result, because the result would not be comparable with that of the complete set."""
    no_progress_timeout_s: PositiveNumber = 7200.0
    """Seconds without progress after which the evaluation stops, > 0. Ray's own default, 30
    minutes, ends jobs that wait for spot GPUs."""

    def __post_init__(self) -> None:
        require_rules(self._broken_rules())

    def _broken_rules(self) -> Iterator[str]:
        slugs = [item.name.replace("/", "_") for item in self.sets]
        twice = next((slug for slug in slugs if slugs.count(slug) > 1), None)
        if twice is not None:
            yield f"sets: need distinct names, got {twice!r} twice"
