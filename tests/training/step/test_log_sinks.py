"""Event files, and the ids of runs in W&B and MLflow, whose packages are replaced by fakes."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

from dfn_ray.config import Logs
from dfn_ray.errors import RunTakenOverError
from dfn_ray.pool import listing_table
from dfn_ray.run import MLFLOW, Run, RunIdentity, RunKind, open_run, start_run, take_over
from dfn_ray.training.checkpoint import commit_checkpoint
from dfn_ray.training.data.seen import Seen
from dfn_ray.training.position import Position, begin_generation, log_lines
from dfn_ray.training.step.log_sinks import TENSORBOARD, open_sinks
from tests.run.below_ray import dies_at, moments_of

MLFLOW_URI = "http://tracking:5000"


def start(folder):
    """A run of the same recipe in any folder."""
    return start_run(
        str(folder),
        RunIdentity(kind=RunKind.TRAIN, fingerprint={"seed": 0}, listing=listing_table([])),
        recipe={},
    )


@pytest.fixture
def wandb_ids(monkeypatch):
    """The ids with which runs were opened."""
    found = []
    fake = SimpleNamespace(init=lambda **given: found.append((given["id"], given["resume"])))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return found


@pytest.fixture
def mlflow(monkeypatch):
    """A tracking server that assigns consecutive ids; `mlflow.meanwhile` is called at a start."""

    def start_run(*, run_id, run_name):
        fake.starts.append(run_id)
        number = len(fake.starts)
        meanwhile, fake.meanwhile = fake.meanwhile, lambda: None
        meanwhile()
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or f"given-{number}"))

    fake = SimpleNamespace(
        set_tracking_uri=lambda uri: None,
        start_run=start_run,
        starts=[],
        meanwhile=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


def test_two_runs_of_one_recipe_are_two_to_wandb_and_a_resume_is_the_same_one(tmp_path, wandb_ids):
    logs = Logs(tensorboard=False, wandb_project="p")
    runs = [start(tmp_path / name) for name in ("a", "b", "a")]
    assert len({run.fingerprint for run in runs}) == 1
    for generation, run in enumerate(runs, 1):
        open_sinks(logs, run, {}, f"000001-{generation:04d}")
    (first, resume), (other, _), (again, _) = wandb_ids
    assert first == again != other
    assert resume == "allow"


def open_mlflow(run):
    open_sinks(Logs(tensorboard=False, mlflow_uri=MLFLOW_URI), run, {}, "000001-0001")


def test_a_resumed_run_goes_on_in_its_mlflow_run(tmp_path, mlflow):
    for _ in range(2):
        open_mlflow(start(tmp_path / "run"))
    assert mlflow.starts == [None, "given-1"]


def test_workers_that_were_replaced_do_not_change_the_mlflow_run(tmp_path, mlflow):
    run = start(tmp_path / "run")
    mlflow.meanwhile = lambda: open_mlflow(run)
    with pytest.raises(RunTakenOverError):
        open_mlflow(run)
    assert run.read_json(MLFLOW) == {MLFLOW_URI: "given-2"}


STEPS, EVERY = 12, 3
"""Samples of a training run and of a checkpoint; a step has 10 samples."""


def train(run: Run) -> None:
    """The writes of a worker for each step and checkpoint, from the run's position to its end."""
    generation = begin_generation(run)
    (sink,) = open_sinks(Logs(), run, {}, generation.name)
    for step in range(generation.position.steps + 1, STEPS + 1):
        sink.write({"loss": 1.0 / step}, step)
        if step % EVERY:
            continue
        commit_checkpoint(
            run,
            generation,
            Position(samples_seen=10 * step, steps=step, seen=Seen(1, {1: ((0, 10 * step),)})),
            model={"w": torch.ones(1)},
            optimizer={"w/exp_avg": torch.ones(1)},
            lines=[{"step": step - back} for back in range(EVERY - 1, -1, -1)],
            keep=1,
        )
        sink.save(run)


def events_in(path: Path) -> Iterator[Event]:
    """The events of a file, which is complete."""
    data, place = path.read_bytes(), 0
    while place < len(data):
        (size,) = struct.unpack_from("<Q", data, place)
        assert place + 16 + size <= len(data)
        yield Event.FromString(data[place + 12 : place + 12 + size])
        place += 16 + size


def steps_shown(folder: Path) -> list[int]:
    files = sorted((folder / TENSORBOARD).iterdir())
    return sorted(event.step for path in files for event in events_in(path) if event.summary.value)


def test_after_a_crash_at_any_write_the_log_is_whole_and_event_files_show_no_step_twice(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    moments = moments_of(lambda: train(start(tmp_path / "calm")))
    every_step = list(range(1, STEPS + 1))
    assert steps_shown(tmp_path / "calm") == every_step
    assert sum("tensorboard/" in moment.name for moment in moments) == 2 * STEPS / EVERY
    lacking = set()
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        with moment.noted():
            dies_at(moment, lambda folder=folder: train(start(folder)))
            train(start(folder))
            assert [line["step"] for line in log_lines(open_run(str(folder)))] == every_step
            shown = steps_shown(folder)
            assert len(set(shown)) == len(shown)
            lacking.add(STEPS - len(shown))
    assert lacking == {0, EVERY}


def test_a_driver_that_lost_the_run_writes_no_events(tmp_path):
    run = start(tmp_path / "run")
    (sink,) = open_sinks(Logs(), run, {}, begin_generation(run).name)
    sink.write({"loss": 1.0}, 1)
    take_over(open_run(run.uri))
    with pytest.raises(RunTakenOverError):
        sink.save(run)
    assert not (tmp_path / "run" / TENSORBOARD).exists()


def test_no_two_generations_write_the_same_event_file(tmp_path, monkeypatch):
    # One host, and one second.
    monkeypatch.setattr("time.time", lambda: 1e9)
    for attempt in (1, 2):
        run = start(tmp_path / "run")
        (sink,) = open_sinks(Logs(), run, {}, f"{attempt:06d}-0001")
        sink.write({"loss": 1.0}, attempt)
        sink.save(run)
    assert steps_shown(tmp_path / "run") == [1, 2]
