"""A training driver that is still running while another one takes its run over."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from dfn_ray.errors import RunTakenOverError
from dfn_ray.pool import listing_table
from dfn_ray.run import RunIdentity, RunKind, open_run, start_run, take_over
from dfn_ray.testing.waiting import meanwhile, until
from dfn_ray.training import fit as fit_module
from dfn_ray.training import train_clip
from dfn_ray.training.fit import FitOutcome
from dfn_ray.training.position import generation_count, latest_position
from dfn_ray.training.worker_spec import WorkerSpec

SAID = "taken over by a driver on"


@pytest.mark.parametrize(
    "error",
    [
        RunTakenOverError("newer workers have resumed from the last checkpoint"),
        RuntimeError("the worker died"),
        None,
    ],
    ids=["its workers stopped", "its workers died", "its data ended"],
)
def test_a_driver_that_lost_its_run_starts_no_workers_again(
    train_recipe, tmp_path, monkeypatch, error
):
    recipe = train_recipe()
    run = start_run(
        str(tmp_path / "run"),
        RunIdentity(kind=RunKind.TRAIN, fingerprint={}, listing=listing_table([])),
        recipe={},
    )
    starts = []

    def fit(*_) -> FitOutcome:
        """A run of workers during which another driver takes the run over."""
        starts.append(None)
        take_over(open_run(run.uri))
        return FitOutcome(error=error)

    monkeypatch.setattr(train_clip, "fit", fit)
    job = WorkerSpec(run=run, recipe=recipe, network=None, until_samples=640, read={})  # type: ignore[arg-type]
    shown = SimpleNamespace(say=lambda line: None)
    with pytest.raises(RunTakenOverError, match=SAID):
        train_clip._fit_until(job, None, shown, None)  # type: ignore[arg-type]
    assert len(starts) == 1
    assert recipe.workers.max_failures > 1


def workers_alive() -> list[int]:
    """Ray Train workers of this process's own Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a zombie is none either
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


@pytest.mark.ray
@pytest.mark.slow
def test_a_training_driver_whose_run_is_taken_over_ends_and_leaves_no_worker(
    local_ray, train_recipe, monkeypatch
):
    import ray

    starts, seen = [], []

    class CountedTrainer(fit_module.TorchTrainer):
        def fit(self):
            starts.append(None)
            return super().fit()

    monkeypatch.setattr(fit_module, "TorchTrainer", CountedTrainer)
    recipe = train_recipe("samples_seen=32000", "logs.tensorboard=false")

    def take_it_over():
        until(partial(Path(recipe.run_uri, "run.json").exists))
        until(lambda: latest_position(open_run(recipe.run_uri)).samples_seen >= 320)
        seen.extend(workers_alive())
        take_over(open_run(recipe.run_uri))

    with meanwhile(take_it_over), pytest.raises(RunTakenOverError, match=SAID):
        train_clip.train(recipe)
    assert len(starts) == 1
    assert generation_count(open_run(recipe.run_uri)) == 1
    assert seen, "its workers were at it"
    until(lambda: not workers_alive(), within_s=30)
    until(lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"])
    # What it had committed by then is where the next one goes on.
    left = latest_position(open_run(recipe.run_uri)).samples_seen
    assert 320 <= left < 32000
    assert train_clip.train(recipe, until_samples=left + 160)["samples_seen"] == left + 160
