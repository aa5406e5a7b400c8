"""Checkpoints are complete or absent, and one decision determines where workers resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dfn_ray.errors import DamagedRunError, RunTakenOverError, TrainingFailedError
from dfn_ray.pool import listing_table
from dfn_ray.run import RunIdentity, RunKind, start_run
from dfn_ray.training.checkpoint import commit_checkpoint, read_tensors
from dfn_ray.training.data.seen import Seen
from dfn_ray.training.position import (
    Position,
    begin_generation,
    current_generation,
    latest_position,
    log_lines,
)


@pytest.fixture
def run(tmp_path):
    return open_again(tmp_path)


def open_again(tmp_path):
    return start_run(
        str(tmp_path / "run"),
        RunIdentity(kind=RunKind.TRAIN, fingerprint={}, listing=listing_table([])),
        recipe={},
    )


def write(run, generation, samples, keep=2):
    return commit_checkpoint(
        run,
        generation,
        Position(samples_seen=samples, steps=samples // 10, seen=Seen(1, {1: ((0, samples),)})),
        model={"w": torch.full((2,), float(samples))},
        optimizer={"w/step": torch.tensor(1.0)},
        lines=[{"loss": samples}],
        keep=keep,
    )


def test_a_checkpoint_is_read_back_as_it_was_written(run):
    position = write(run, begin_generation(run), 20)
    assert latest_position(run) == position
    assert position.seen == Seen(1, {1: ((0, 20),)})
    assert torch.equal(read_tensors(run, position, "model")["w"], torch.full((2,), 20.0))


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_tensors_that_are_cut_absent_or_have_another_bit_are_a_damaged_run(run, part):
    position = write(run, begin_generation(run), 20)
    path = Path(run.store.uri, "checkpoints", str(position.name), f"{part}.safetensors")
    whole = path.read_bytes()
    flipped = (whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in range(len(whole)))
    for data in (b"", whole[:50], whole[:-1], *flipped):
        path.write_bytes(data)
        with pytest.raises(DamagedRunError, match=rf"{path.name}: is damaged or was altered"):
            read_tensors(run, position, part)
    path.unlink()
    with pytest.raises(DamagedRunError, match=rf"{path.name}: is missing") as caught:
        read_tensors(run, position, part)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("cut", [1, 3])
def test_a_log_that_is_cut_is_a_damaged_run(run, cut):
    write(run, begin_generation(run), 20)
    (path,) = Path(run.store.uri, "log").iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DamagedRunError, match=f"{path.name}: is damaged"):
        log_lines(run)


def test_only_the_latest_checkpoints_are_kept(run):
    generation = begin_generation(run)
    for samples in (10, 20, 30):
        write(run, generation, samples)
    names = sorted(path.name for path in Path(run.store.uri, "checkpoints").iterdir())
    assert names == [
        "samples-000000000020-000001-0001",
        "samples-000000000020-000001-0001.json",
        "samples-000000000030-000001-0001",
        "samples-000000000030-000001-0001.json",
    ]


def test_a_checkpoint_without_its_marker_does_not_count_and_its_steps_are_not_in_the_log(run):
    generation = begin_generation(run)
    write(run, generation, 10)
    write(run, generation, 20)
    run.store.delete("checkpoints/samples-000000000020-000001-0001.json")
    assert latest_position(run).samples_seen == 10
    assert [line["loss"] for line in log_lines(run)] == [10]
    write(run, begin_generation(run), 20)
    assert [line["loss"] for line in log_lines(run)] == [10, 20]


def test_workers_of_an_earlier_generation_cannot_commit(run):
    before = begin_generation(run)
    write(run, before, 10)
    now = begin_generation(run)
    assert current_generation(run) == now
    assert now.position.samples_seen == 10
    with pytest.raises(RunTakenOverError):
        write(run, before, 20)
    assert latest_position(run).samples_seen == 10


def test_a_driver_that_was_replaced_starts_no_workers(run, tmp_path):
    open_again(tmp_path)
    with pytest.raises(RunTakenOverError):
        begin_generation(run)


def test_the_marker_is_written_last(run, monkeypatch):
    generation = begin_generation(run)
    written = []
    store = type(run.store)
    plain = store.write
    monkeypatch.setattr(
        store, "write", lambda self, name, data: (written.append(name), plain(self, name, data))
    )
    write(run, generation, 10)
    assert written[-1] == "checkpoints/samples-000000000010-000001-0001.json"
    assert json.loads(run.store.read(written[-1]))["samples_seen"] == 10


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("broken", ["model", "optimizer"])
def test_what_is_no_number_is_not_made_a_checkpoint(run, value, broken):
    generation = begin_generation(run)
    good = write(run, generation, 10)
    tensors = {part: {"a": torch.ones(2), "w": torch.ones(2)} for part in ("model", "optimizer")}
    tensors[broken]["w"][1] = value
    with pytest.raises(TrainingFailedError, match=f"w of the {broken} .*20 samples.*learning_rate"):
        commit_checkpoint(
            run,
            generation,
            Position(samples_seen=20, steps=2),
            **tensors,
            lines=[{"loss": 1.0}],
            keep=2,
        )
    assert latest_position(run) == good
    assert [name for name in run.store.child("checkpoints").names() if "20" in name] == []
    assert begin_generation(run).position == good
