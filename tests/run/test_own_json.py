"""JSON files of a run with a missing or mistyped value: an error naming the file, or no effect."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dfn_ray.errors import DamagedRunError, DfnRayError
from dfn_ray.filtering import filter_pool
from dfn_ray.filtering.subset import export_subset
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.report.compare import compare_runs
from dfn_ray.run.sealed_json import json_bytes
from dfn_ray.testing.sample_pools import write_pool
from tests.run.below_ray import filter_without_ray, recipe_of

ABSENT = object()
VALUES = (ABSENT, None, 5, [])
Write = Callable[[Path, dict], None]


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"), shards=1, samples=8)


@pytest.fixture(scope="module")
def finished(pool, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    filter_without_ray(recipe_of(folder, pool, 0.5))
    return folder


def sealed(path: Path, value: dict) -> None:
    path.write_bytes(json_bytes(value))


def plain(path: Path, value: dict) -> None:
    """Writes a JSON file without a digest, as in format 1."""
    path.write_text(json.dumps(value))


def content(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_bytes())
    value.pop("sha256", None)
    return value


def altered(
    value: dict, *, depth: int, values: Sequence[object] = VALUES
) -> Iterator[tuple[str, dict]]:
    """Variants of a value: each name in it, down to a depth, missing or with another value."""
    for name, inner in value.items():
        for other in values:
            rest = {key: kept for key, kept in value.items() if key != name}
            if other is ABSENT or other != inner:
                yield name, rest if other is ABSENT else {**rest, name: other}
        if isinstance(inner, dict) and depth > 1:
            for below, changed in altered(inner, depth=depth - 1, values=values):
                yield f"{name}.{below}", {**value, name: changed}


VERBS: dict[str, Callable[[Path, Path, Path], object]] = {
    "verify": lambda run, pool, whole: verify_run(str(run)),
    "compare": lambda run, pool, whole: compare_runs([str(run), str(whole)]),
    "export": lambda run, pool, whole: export_subset.export_uids(
        str(run), str(run.parent / "u.npy")
    ),
    "select": lambda run, pool, whole: filter_pool.select(recipe_of(run, pool, 0.25)),
    "filter": lambda run, pool, whole: filter_without_ray(recipe_of(run, pool, 0.5)),
}


@pytest.fixture(params=[1, 2], ids=["format 1", "format 2"])
def run(request, finished, tmp_path) -> tuple[Path, Write]:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    if request.param == 2:
        return folder, sealed
    plain(folder / "run.json", content(folder / "run.json") | {"format": 1})
    shutil.rmtree(folder / "attempts")
    return folder, plain


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", ["selection.json", "run.json"])
def test_whatever_is_absent_or_of_another_type_is_damage_or_no_matter(
    run, finished, pool, name, verb, monkeypatch
):
    folder, write = run
    path, before = folder / name, content(folder / name)
    kept = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    monkeypatch.setattr(os, "fsync", lambda file: None)
    for where, value in altered(before, depth=2):
        if where == "format":
            continue
        write(path, value)
        if write is sealed and where.startswith("recipe"):
            (attempt,) = folder.glob("attempts/*.json")
            sealed(attempt, content(attempt) | {"recipe": value.get("recipe", 5)})
        try:
            VERBS[verb](folder, pool, finished)
        except DfnRayError:
            pass
        except Exception as error:
            error.add_note(f"{name}: {where}: {json.dumps(value)[:2000]}")
            raise
        for file in folder.rglob("*"):
            if file.is_file() and file not in kept:
                file.unlink()
        for file, data in kept.items():
            file.write_bytes(data)


NEEDED = {
    "selection.json": (
        "state", "k", "select", "network", "counts", "samples", "threshold",
        "threshold_key", "last_tie_words", "above", "at",
    ),
    "run.json": (
        "kind", "pool", "pool.shards", "pool.digest", "fingerprint", "fingerprint_digest", "recipe",
        "recipe.pool", "recipe.pool.uri", "recipe.networks", "recipe.rules", "recipe.decode",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NEEDED)
def test_what_readers_use_is_needed_and_of_its_type(run, name):
    folder, write = run
    path, before = folder / name, content(folder / name)
    verify_run(str(folder))
    seen = set()
    for where, value in altered(before, depth=3, values=(ABSENT, [])):
        if where not in NEEDED[name]:
            continue
        write(path, value)
        if write is sealed and where.startswith("recipe."):
            (attempt,) = folder.glob("attempts/*.json")
            sealed(attempt, content(attempt) | {"recipe": value["recipe"]})
        with pytest.raises(DamagedRunError, match=rf"{name}|attempts/") as caught:
            verify_run(str(folder))
        seen.add(where)
        assert caught.value.exit_code == 1
    assert seen == set(NEEDED[name])
