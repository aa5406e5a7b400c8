"""Crashes before or after any write of any verb: the same command then ends as if undisturbed.

`filter` and training have their own tests, next to those of two drivers: test_two_drivers.py,
test_two_generations.py and, for copies of curves that are not read back,
tests/training/step/test_log_sinks.py.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.cli.verbs import VERBS as COMMANDS
from dfn_ray.config import EvaluateRecipe, Network, Source, TrainRecipe, recipe_from
from dfn_ray.evaluation import evaluate as evaluation
from dfn_ray.evaluation.gather import Gathered
from dfn_ray.filtering.filter_pool import materialize, select
from dfn_ray.filtering.scoring.spending import CostMeter, spent_before
from dfn_ray.filtering.subset import write_uid_list
from dfn_ray.filtering.subset.export_subset import export_uids, export_webdataset
from dfn_ray.filtering.subset.uid_list_subset import materialize_listed
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.images.transform import ImageTransform
from dfn_ray.pool import list_pool, listing_table
from dfn_ray.run import RunIdentity, RunKind, start_run
from dfn_ray.storage import Store, filesystem, is_local
from dfn_ray.testing.sample_pools import uid_of, write_pool
from dfn_ray.training import train_clip
from dfn_ray.training.data.index import INDEX_SCHEMA
from dfn_ray.uids.records import UID_DTYPE
from tests.evaluation.conftest import write_layout
from tests.run.below_ray import (
    WRITES,
    Moment,
    dies_at,
    filter_without_ray,
    moments_of,
    no_ray,
    recipe_of,
    score_without_ray,
)

FIRST, OTHER = 0.5, 0.25
SETS = ("zeroshot_classification", "zeroshot_retrieval")


@dataclass(frozen=True)
class Places:
    """The place where a verb finds its input and writes its output."""

    root: str
    """A folder or prefix without other content."""
    inputs: Path

    @property
    def pool(self) -> Path:
        return self.inputs / "pool"

    @property
    def own_pool(self) -> Path:
        """A place that may be changed, next to the run on a disk."""
        return Path(self.root) / "pool"

    @property
    def run(self) -> str:
        return f"{self.root}/run"

    @property
    def out(self) -> str:
        return f"{self.root}/out"


def score(places: Places) -> None:
    score_without_ray(recipe_of(places.run, places.pool, FIRST))


def filtered(places: Places) -> None:
    filter_without_ray(recipe_of(places.run, places.pool, FIRST))


def select_by(fraction: float, places: Places) -> None:
    select(recipe_of(places.run, places.pool, fraction))


def scored_before_a_change(places: Places) -> None:
    shutil.copytree(places.pool, places.own_pool)
    score_without_ray(recipe_of(places.run, places.own_pool, FIRST))
    with next(places.own_pool.glob("*.tar")).open("ab") as shard:
        shard.write(bytes(1024))


def score_listed_anew(places: Places) -> None:
    recipe = recipe_of(places.run, places.own_pool, FIRST)
    score_without_ray(recipe, accept_changed_shards=True)


def spend(places: Places) -> None:
    """The cost of a run, written at its end."""
    recipe = recipe_of(places.run, places.pool, FIRST)
    run, _ = score_without_ray(recipe)
    with CostMeter(recipe, run, alive=lambda: {"CPU": 2.0}):
        pass
    assert spent_before(run).cpu_hours > 0


def index(places: Places) -> None:
    """The files that training writes before its workers start."""
    pool = recipe_of(places.run, places.pool, FIRST).pool
    recipe = TrainRecipe(
        run_uri=str(places.run),
        samples_seen=9,
        batch_size=3,
        model=Network(model="ViT-B-32", pretrained="openai"),
        sources=(Source(pool=pool),),
    )
    listing = listing_table(list_pool(pool).shards)
    run = start_run(
        places.run, RunIdentity(kind=RunKind.TRAIN, fingerprint={}, listing=listing), recipe={}
    )
    table = pa.Table.from_pylist([{"source": 0, "shard": 1, "rows": 9}], INDEX_SCHEMA)
    with patch.object(train_clip, "index_sources", lambda *_: table):
        found = train_clip._index(run, recipe, ((),), print)
    assert found == table
    assert train_clip._stored_index(run) == table


def selected(places: Places) -> None:
    score(places)
    select_by(FIRST, places)


def materialize_run(places: Places) -> None:
    materialize(recipe_of(places.run, places.pool, FIRST))


def materialize_out(places: Places) -> None:
    materialize(recipe_of(places.run, places.pool, OTHER), out_uri=places.out)
    verify_run(places.out, full=True)


def materialize_uids(places: Places) -> None:
    pool = recipe_of(places.run, places.pool, FIRST).pool
    materialize_listed(pool, str(places.inputs / "uids.npy"), places.out)
    verify_run(places.out, full=True)


def export_list(places: Places) -> None:
    export_uids(places.run, f"{places.out}/uids.npy")


def export_tars(places: Places) -> None:
    export_webdataset(places.run, places.out, shard_samples=5)


class FixedNetwork:
    """A network of which only the identity is used."""

    transform = ImageTransform(
        size=(8, 8), resize_mode="squash", interpolation="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3
    )

    def fingerprint(self) -> dict[str, Any]:
        return {"weights": "fixed"}


def embedded(job: Any, *_: Any) -> Gathered:
    """Fake embeddings of the images of a set."""
    image_ND, numbers, counts = np.eye(4, dtype=np.float32), np.arange(4), Counter({"scored": 4})
    if job.located.spec.task == "zeroshot_classification":
        return Gathered(image_ND=image_ND, counts=counts, label_N=numbers)
    return Gathered(image_ND=image_ND, counts=counts, text_MD=image_ND, image_of_text_M=numbers)


def evaluate(places: Places) -> None:
    """`evaluate_sets` with fake embeddings."""
    sets = [
        {"name": task, "task": task, "pool": {"uri": [str(places.inputs / task)]}} for task in SETS
    ]
    values = {"run_uri": places.run, "network": {"model": "local-dir:/none"}, "sets": sets}
    classes_CD = np.eye(6, 4, dtype=np.float32)
    with (
        patch.object(evaluation, "check_ray_reachable", lambda: None),
        patch.object(evaluation, "connect", lambda: None),
        patch.object(evaluation, "put_networks", lambda values: None),
        patch.object(evaluation, "fetch_network", lambda network: FixedNetwork()),
        patch.object(evaluation, "_embed", embedded),
        patch.object(
            evaluation,
            "_classifiers",
            lambda jobs, *_: {job.classes: classes_CD for job in jobs},
        ),
    ):
        evaluation.evaluate_sets(recipe_from(values, kind=EvaluateRecipe))


def nothing(places: Places) -> None:
    del places


Step = Callable[[Places], None]
VERBS: dict[str, tuple[Step, Step]] = {
    "score": (nothing, score),
    "score a pool that changed": (scored_before_a_change, score_listed_anew),
    "score, what it cost": (nothing, spend),
    "train, its index": (nothing, index),
    "select": (score, partial(select_by, OTHER)),
    "select after a select": (selected, partial(select_by, OTHER)),
    "select beside a subset": (filtered, partial(select_by, OTHER)),
    "materialize": (selected, materialize_run),
    "materialize --out": (filtered, materialize_out),
    "materialize --uids": (nothing, materialize_uids),
    "evaluate": (nothing, evaluate),
    "evaluate into a run": (filtered, evaluate),
    "export uids": (filtered, export_list),
    "export webdataset": (filtered, export_tars),
}
"""Content before a verb, and the verb."""

ELSEWHERE = {
    "filter": "test_two_drivers.py",
    "pipeline": (
        "filter, train and evaluate; its recipe and its comparison are written whole and anew by "
        "every attempt, see tests/pipeline/test_pipeline.py"
    ),
    "compare": "one picture, written whole",
    "doctor": "a probe under a hidden name of its own",
}
READING = {"plan", "verify", "inspect", "submit", "demo", "completion"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_pool(folder / "pool", shards=2, samples=9)
    for task in SETS:
        write_layout(folder / task, task=task)
    uids = [uid_of(number) for number in (3, 3, 5, 8, 12, 17, 99)]
    words = [(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids]
    np.save(folder / "uids.npy", np.sort(np.array(words, UID_DTYPE)))
    return folder


@pytest.fixture(autouse=True)
def small_and_unsynced(monkeypatch):
    """Uid lists are spilled as in large runs.

    Losses by a power cut are not simulated here.
    """
    monkeypatch.setattr(write_uid_list, "STRETCH_UIDS", 5)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


CHANGING = {"id", "created", "sha256", "parts", "files", "output_dir"}
"""Keys of JSON files with times or attempts: names of parts contain the number of the attempt."""


def content(root: str) -> dict[str, Any]:
    """All results below a URI: files by name, parts reduced to their combined rows.

    Without writer and cost.
    """
    found: dict[str, Any] = {}
    fs = filesystem(root)
    fs.invalidate_cache()
    top = fs._strip_protocol(root).rstrip("/")
    for path in fs.find(top):
        name = path.removeprefix(f"{top}/")
        folder = name.split("/")[-2] if "/" in name else ""
        if (
            folder.endswith("attempts")
            or folder == "spending"
            or "/." in f"/{name}"
            or name.endswith(".txt")
        ):
            continue
        if folder in ("scores", "subset", "borderline"):
            with fs.open(path) as file:
                rows = found.setdefault(name.rpartition("/")[0], [])
                rows += map(str, pq.read_table(file).to_pylist())
                rows.sort()
        elif name.endswith(".json"):
            value = json.loads(fs.cat_file(path))
            found[name] = {key: value[key] for key in value.keys() - CHANGING}
        else:
            found[name] = fs.cat_file(path)
    return found


def remove(root: str) -> None:
    if is_local(root):
        shutil.rmtree(root)
    else:
        filesystem(root).rm(root, recursive=True)


@contextmanager
def prepared(verb: str, places: Places, kept: Path | None) -> Iterator[Callable[[], None]]:
    """Context with the verb and its inputs in place, on a copy of the disk `kept`."""
    before, step = VERBS[verb]
    if kept is not None and kept.exists():
        shutil.copytree(kept, places.root)
    else:
        with no_ray():
            before(places)
        if kept is not None:
            Path(places.root).mkdir(exist_ok=True)
            shutil.copytree(places.root, kept)

    def work() -> None:
        with no_ray():
            step(places)

    yield work
    remove(places.root)


def check_each_crash(verb: str, places: Places, kept: Path | None) -> list[Moment]:
    with prepared(verb, places, kept) as work:
        moments = moments_of(work)
        undisturbed = content(places.root)
        work()
        assert content(places.root) == undisturbed, "done twice it is done once"
    for moment in moments:
        with moment.noted(), prepared(verb, places, kept) as work:
            dies_at(moment, work)
            work()
            assert content(places.root) == undisturbed
    return moments


LONG = ("select after a select", "materialize", "evaluate into a run")
"""Verbs whose writes are those of other verbs here, or of `filter`."""


@pytest.mark.parametrize(
    "verb", [pytest.param(v, marks=pytest.mark.slow if v in LONG else ()) for v in VERBS]
)
def test_after_a_crash_at_any_write_the_same_command_ends_as_if_undisturbed(verb, inputs, tmp_path):
    places = Places(str(tmp_path / "work"), inputs)
    assert check_each_crash(verb, places, tmp_path / "kept")


@pytest.mark.slow  # a second for each crash: the client starts anew in each process
@pytest.mark.parametrize("verb", ["select", "materialize --out", "evaluate", "export webdataset"])
def test_after_a_crash_on_s3_as_well(verb, inputs, tmp_path, conditional_s3):
    places = Places(f"s3://runs/{tmp_path.name}", inputs)
    assert check_each_crash(verb, places, None)


def test_every_verb_is_here_or_somewhere_else():
    here = {verb.replace(",", " ").split()[0] for verb in VERBS}
    assert set(COMMANDS.commands) == here | set(ELSEWHERE) | READING


def test_every_method_of_a_store_is_known_to_write_or_not():
    reading = {
        "address", "is_local", "uri_of", "child", "exists", "read", "open", "list", "names",
        "honours_conditions",  # writes what is there already, over itself
    }  # fmt: skip
    methods = {name for name in vars(Store) if not name.startswith("_")}
    assert methods == reading | set(WRITES) | {"uri", "writer"} & methods
