"""Who a run is to Weights & Biases and MLflow. Their packages are replaced by what records how they are called."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from dfn_ray.config import Logs
from dfn_ray.errors import RunTakenOver
from dfn_ray.pool import listing_table
from dfn_ray.run import start_run
from dfn_ray.training.logs import MLFLOW, open_sinks

MLFLOW_URI = "http://tracking:5000"


def start(folder):
    """A run of one recipe, whichever the folder."""
    return start_run(
        str(folder),
        kind="train",
        recipe={},
        fingerprint={"seed": 0},
        listing=listing_table([]),
    )


@pytest.fixture
def wandb_ids(monkeypatch):
    """The identities under which runs were opened."""
    found = []
    fake = SimpleNamespace(init=lambda **given: found.append((given["id"], given["resume"])))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return found


@pytest.fixture
def mlflow(monkeypatch):
    """A tracking server that gives out identities one after the other; `mlflow.meanwhile` is called at a start."""

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
        open_sinks(logs, run, {}, generation)
    (first, resume), (other, _), (again, _) = wandb_ids
    assert first == again != other
    assert resume == "allow"


def open_mlflow(run):
    open_sinks(Logs(tensorboard=False, mlflow_uri=MLFLOW_URI), run, {}, 1)


def test_a_resumed_run_goes_on_in_its_mlflow_run(tmp_path, mlflow):
    for _ in range(2):
        open_mlflow(start(tmp_path / "run"))
    assert mlflow.starts == [None, "given-1"]


def test_workers_that_were_replaced_do_not_change_the_mlflow_run(tmp_path, mlflow):
    run = start(tmp_path / "run")
    mlflow.meanwhile = lambda: open_mlflow(run)
    with pytest.raises(RunTakenOver):
        open_mlflow(run)
    assert run.read_json(MLFLOW) == {MLFLOW_URI: "given-2"}
