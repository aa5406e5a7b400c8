"""JSON files of a training run with a missing or mistyped value, and unrelated files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dfn_ray.errors import DamagedRunError
from dfn_ray.run import CHECKPOINTS, GENERATIONS, MLFLOW, RESULT
from dfn_ray.training import train_clip
from dfn_ray.training.checkpoint import commit_checkpoint, read_tensors, remove_old
from dfn_ray.training.data.seen import Seen
from dfn_ray.training.position import (
    Position,
    begin_generation,
    current_generation,
    latest_position,
    log_lines,
    reached_samples,
    record_reached,
)
from tests.run.test_own_json import altered, content, sealed
from tests.training.test_two_generations import start, unsynced  # noqa: F401  a fixture of every test


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of two generations; the second resumed from the checkpoint of the first."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = start(folder)
    for samples in (20, 40):
        generation = begin_generation(run)
        record_reached(run, generation, samples - 5)
        commit_checkpoint(
            run,
            generation,
            Position(
                samples_seen=samples,
                steps=samples // 5,
                seen=Seen(1, {1: ((0, samples),), 2: ((3, 4), (5, 6))}),
                counts={"failed/decode_error": 2},
            ),
            model={"w": torch.ones(2)},
            optimizer={"w/exp_avg": torch.ones(2)},
            lines=[{"loss": 1.0}],
            keep=2,
        )
    record_reached(run, begin_generation(run), 45)
    run.replace_json(MLFLOW, {"http://tracking": "1"}, None)
    train_clip._result(run, None, ())  # type: ignore[arg-type]
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def go_on(folder: Path) -> Position:
    """Everything that the next driver and its workers read and replace."""
    run = start(folder)
    run.read_json(MLFLOW)
    reached_samples(run)
    log_lines(run)
    begin_generation(run)
    generation = current_generation(run)
    for part in ("model", "optimizer") if generation.position.name else ():
        read_tensors(run, generation.position, part)
    remove_old(run, generation, 2)
    train_clip._result(run, None, ())  # type: ignore[arg-type]
    return latest_position(run)


def refusal(folder: Path) -> str | None:
    """The error of a damaged run; None without an error."""
    try:
        go_on(folder)
    except DamagedRunError as error:
        return str(error)
    return None


def names_in(folder: Path) -> list[str]:
    """The JSON files that are read, in order."""
    inside = [
        path for kind in (CHECKPOINTS, GENERATIONS) for path in (folder / kind).glob("*.json")
    ]
    return [RESULT, MLFLOW, *sorted(str(path.relative_to(folder)) for path in inside)]


def test_all_kinds_of_files_are_looked_at(folder):
    endings = [
        name.partition("-")[0] if "/" not in name else name.partition(".")[2]
        for name in names_in(folder)
    ]
    assert set(endings) == {RESULT, MLFLOW, "json", "start.json", "reached.json"}
    assert go_on(folder).samples_seen == 40


def test_whatever_is_absent_or_of_another_type_is_damage_or_no_matter(folder):
    kept = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    damaged = set()
    for name in names_in(folder):
        for where, value in altered(content(folder / name), depth=3):
            sealed(folder / name, value)
            try:
                said = refusal(folder)
            except Exception as error:
                error.add_note(f"{name}: {where}: {json.dumps(value)[:2000]}")
                raise
            if said is not None:
                assert name in said
                assert "score the pool" not in said
                damaged.add(name.partition("-")[0] if name.startswith(CHECKPOINTS) else name)
            for file in folder.rglob("*"):
                if file.is_file() and file not in kept:
                    file.unlink()
            for file, data in kept.items():
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(data)
    last = sorted(name for name in names_in(folder) if name.endswith("reached.json"))[-1]
    assert {
        RESULT,
        MLFLOW,
        "checkpoints/samples",
        last,
        last.replace("reached", "start"),
    } <= damaged


NEEDED = {
    "checkpoints/samples-000000000040": ("samples_seen", "steps", "seen", "seen.groups",
        "seen.spans"),
    "generations/000001-0003.start.json": ("checkpoint", "repeats"),
    "generations/000001-0003.reached.json": ("samples_seen",),
    "result.json": ("samples_seen", "steps", "network"),
}  # fmt: skip


@pytest.mark.parametrize("start_of_name", NEEDED)
def test_what_readers_use_is_needed(folder, start_of_name):
    (name,) = [name for name in names_in(folder) if name.startswith(start_of_name)]
    before = content(folder / name)
    seen = set()
    for where, value in altered(before, depth=2, values=([],)):
        if where in NEEDED[start_of_name]:
            sealed(folder / name, value)
            with pytest.raises(DamagedRunError, match=f"{Path(name).name}.*{where}") as caught:
                go_on(folder)
            assert caught.value.exit_code == 1
            seen.add(where)
    assert seen == set(NEEDED[start_of_name])


@pytest.mark.parametrize("checkpoint", ["x", "samples-x", "../samples-1-1-1", "samples-1-1-1"])
def test_a_start_from_what_is_no_checkpoint_is_damage(folder, checkpoint):
    path = folder / GENERATIONS / "000001-0003.start.json"
    sealed(path, content(path) | {"checkpoint": checkpoint})
    with pytest.raises(
        DamagedRunError, match=r"start\.json: is damaged|samples-1-1-1\.json: is missing"
    ):
        go_on(folder)


def test_files_of_other_names_are_passed_by(folder):
    for name in ("notes", "notes.start", "1-x", "x-000001", "000001-0009.start.old"):
        (folder / GENERATIONS / f"{name}.json").write_text("{}")
        (folder / CHECKPOINTS / f"{name}.json").write_text("{}")
    assert go_on(folder).samples_seen == 40


def test_a_line_of_the_log_that_is_no_object_is_damage(folder):
    path = max((folder / "log").iterdir())
    path.write_text("[]\n")
    with pytest.raises(
        DamagedRunError, match=rf"{path.name}: is damaged: one of its lines is not a JSON object"
    ):
        log_lines(start(folder))
