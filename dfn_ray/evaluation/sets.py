"""The location of an evaluation set, and the sources of its class names and templates.

CLIP_benchmark's WebDataset layout (clip_benchmark 1.6, build_wds_dataset):

    ROOT/classnames.txt, zeroshot_classification_templates.txt, dataset_type.txt
    ROOT/SPLIT/nshards.txt, 0.tar, 1.tar, ...   a sample: an image and `cls`, or `txt` for retrieval
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby

from dfn_ray.config import EvaluationSet, Pool
from dfn_ray.errors import InputError
from dfn_ray.pool import Shard, list_pool, listing_notes, require_outside_pool
from dfn_ray.resolving.prompts import class_names, prompt_templates
from dfn_ray.storage import Store, read_uri

_SHARD_COUNT = "nshards.txt"
_CLASSNAMES = "classnames.txt"
_TEMPLATES = "zeroshot_classification_templates.txt"
_TYPE = "dataset_type.txt"

_TYPES = {"zeroshot_classification": "classification", "zeroshot_retrieval": "retrieval"}

Classes = tuple[tuple[str, ...], tuple[str, ...]]
"""Class names and templates; sets with the same values share a classifier."""


@dataclass(frozen=True, kw_only=True)
class LocatedSet:
    """An evaluation set with its shards and class names located."""

    spec: EvaluationSet
    pool: Pool
    """The pool as it is read: with the layout resolved, and `caption` as the task needs it."""
    shards: tuple[Shard, ...]
    classnames: tuple[str, ...]
    """Argument of `class_names`; empty for retrieval."""
    templates: tuple[str, ...]
    """Argument of `prompt_templates`; empty for retrieval."""
    notes: tuple[str, ...] = ()
    """Notes on the listing: files it left out, and findings that may be unintended."""
    class_folders: int | None = None
    """Number of folders in a set of image folders, which must equal the number of class names."""

    @property
    def size_bytes(self) -> int:
        """Total size of its shards in the listing."""
        return sum(shard.size_bytes for shard in self.shards)


def locate(spec: EvaluationSet) -> LocatedSet:
    """Returns the shards of a set and the sources of its class names, without opening a shard.

    Raises InputError if the set is empty, a shard is missing, the layout is that of another task,
    or there are no class names.
    """
    several = "list" if spec.pool.caption == "list" else "lines"
    pool = replace(spec.pool, caption=several if spec.task == "zeroshot_retrieval" else "label")
    root = _layout_root(spec)
    if root is not None:
        pool = replace(pool, uri=(_tars(root, spec),))
    listing = list_pool(pool)
    shards = listing.shards
    bad = next((shard for shard in shards if shard.fault is not None), None)
    if bad is not None:
        raise InputError(
            f"sets.{spec.name}: {bad.uri}: {bad.fault}; the set is incomplete. Restore "
            "the shard, or remove the set"
        )
    notes = tuple(listing_notes(listing))
    located = LocatedSet(
        spec=spec, pool=pool, shards=shards, classnames=(), templates=(), notes=notes
    )
    if spec.task == "zeroshot_retrieval":
        return located
    folders = _class_folders(spec, shards) if pool.format == "folder" else None
    return replace(
        located,
        classnames=spec.classnames or _beside(root, _CLASSNAMES) or folders or _unnamed(spec),
        templates=spec.templates or _beside(root, _TEMPLATES) or ("openai",),
        class_folders=None if folders is None else len(folders),
    )


def classes_of(located: LocatedSet) -> Classes:
    """Returns the class names and templates of a set; none for retrieval.

    Raises InputError if a file of them cannot be read, or the number of names differs from that of
    class folders.
    """
    if located.spec.task != "zeroshot_classification":
        return (), ()
    names, templates = class_names(located.classnames), prompt_templates(located.templates)
    if located.class_folders not in (None, len(names)):
        raise InputError(
            f"sets.{located.spec.name}.classnames: need a name for each of {located.class_folders} "
            f"class folders, in their sorted order, got {len(names)}"
        )
    return names, templates


def refuse_run_in_sets(run_uri: str, sets: Iterable[LocatedSet]) -> None:
    """Raises InputError if files written to `run_uri` would be listed as part of a set."""
    for item in sets:
        require_outside_pool(item.pool, run_uri, setting="run_uri", shards=item.shards)


def _layout_root(spec: EvaluationSet) -> str | None:
    """The root of CLIP_benchmark's layout if the pool's URI is a root or a split, else None."""
    uri = spec.pool.uri[0].rstrip("/")
    if spec.pool.format not in ("auto", "webdataset") or len(spec.pool.uri) > 1:
        return None
    if any(character in uri for character in "*?[{"):
        return None
    store = Store(uri)
    if store.exists(_SHARD_COUNT):
        return uri.rpartition("/")[0] or "."
    if store.exists(f"{spec.split}/{_SHARD_COUNT}"):
        return uri
    if store.exists(_CLASSNAMES) or store.exists(_TYPE):
        raise InputError(
            f"sets.{spec.name}.split: {uri} looks like CLIP_benchmark's layout, but has no "
            f"{spec.split}/{_SHARD_COUNT}; use an existing split, or the tars themselves"
        )
    return None


def _tars(root: str, spec: EvaluationSet) -> str:
    """The pattern of the tars of a split, whose number is in `nshards.txt`."""
    uri = spec.pool.uri[0].rstrip("/")
    folder = uri if uri != root and Store(uri).exists(_SHARD_COUNT) else f"{root}/{spec.split}"
    declared = _text(f"{root}/{_TYPE}") if Store(root).exists(_TYPE) else "classification"
    if declared != _TYPES[spec.task]:
        raise InputError(
            f"sets.{spec.name}.task: {root}/{_TYPE} says {declared!r}, which {spec.task} cannot "
            "read"
        )
    count = _text(f"{folder}/{_SHARD_COUNT}")
    if not re.fullmatch("0{0,9}[1-9][0-9]{0,8}", count):
        raise InputError(f"{folder}/{_SHARD_COUNT}: need the number of tars, got {count!r}")
    return f"{folder}/{{0..{int(count) - 1}}}.tar"


def _class_folders(spec: EvaluationSet, shards: tuple[Shard, ...]) -> tuple[str, ...]:
    """The names of the class folders; all roots must have the same ones, so that numbers agree."""
    roots = {
        root: tuple(shard.name for shard in group)
        for root, group in groupby(shards, lambda shard: shard.uri.rpartition("/")[0])
    }
    (first, names), *others = roots.items()
    for root, found in others:
        if found != names:
            raise InputError(
                f"sets.{spec.name}.pool: {first} and {root} have different class folders: "
                f"{len(names)} and {len(found)}; evaluate them as two sets"
            )
    return names


def _beside(root: str | None, name: str) -> tuple[str, ...] | None:
    """A file of the layout, to pass to `class_names` or `prompt_templates`; None if absent."""
    return (f"{root}/{name}",) if root is not None and Store(root).exists(name) else None


def _unnamed(spec: EvaluationSet) -> tuple[str, ...]:
    raise InputError(
        f"sets.{spec.name}.classnames: need names (`imagenet`, a .txt file, or a list), because "
        f"the set has neither class folders nor a {_CLASSNAMES} of CLIP_benchmark's layout"
    )


def _text(uri: str) -> str:
    return read_uri(uri).decode("utf-8", "replace").strip().lower()
