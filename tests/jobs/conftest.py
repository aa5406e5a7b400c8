"""A Ray head, and a pipeline on 60 samples whose stages are submitted one by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobSubmissionClient

from dfn_ray.config import PipelineRecipe, TrainRecipe, recipe_from, recipe_values
from dfn_ray.testing.head import Head, start_head
from dfn_ray.testing.random_networks import save_tiny_network
from dfn_ray.testing.sample_pools import TarBuilder, photo, write_pool

ROOT = Path(__file__).parents[2]
SHARDS, SAMPLES = 3, 20
SAMPLES_SEEN = 1920
LABELS = 4
BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def head():
    """One head for all submissions; with 2 CPUs Ray starts no more workers than CI has cores."""
    with start_head(num_cpus=2) as started:
        yield started


@dataclass(frozen=True)
class Cluster:
    """The head as users access it: `ray job ...`, `dfn-ray submit` and Ray's client."""

    head: Head

    def run(
        self, *command: str, cwd: Path = ROOT, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """A command line with access to the cluster."""
        return subprocess.run(
            command,
            check=False,
            cwd=cwd,
            env=self.environment | environment,
            capture_output=True,
            text=True,
        )

    def start(self, *command: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
        """The same, without waiting for it."""
        return subprocess.Popen(
            command, cwd=cwd, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(BIN), os.environ["PATH"]])
        return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | self.head.environment

    @cached_property
    def client(self) -> JobSubmissionClient:
        # By header: this process may have a Ray of its own, with another token.
        return JobSubmissionClient(
            self.head.address, headers={"Authorization": f"Bearer {self.head.token}"}
        )


@pytest.fixture(scope="session")
def cluster(head) -> Cluster:
    return Cluster(head)


@dataclass(frozen=True)
class Pipeline:
    """A small pipeline recipe and separate recipes of its stages, each a TOML file in `folder`."""

    folder: Path
    recipe: PipelineRecipe

    @property
    def train_recipe(self) -> TrainRecipe:
        """Trains on the filter job's subset, where the pipeline would."""
        subset = {"uri": self.recipe.uri("filter", "subset"), "chunk_rows": 5}
        return self.recipe.train_recipe("dfn", 0, {"name": "dfn", "pool": subset})

    def file(self, name: str, **changes: Any) -> Path:
        """The recipe `filter`, `train`, `evaluate` or `pipeline` with changes, as a file."""
        values = {
            "filter": lambda: self.recipe.filter_recipe(None),
            "train": lambda: self.train_recipe,
            "evaluate": lambda: self.recipe.evaluate_recipe(
                "network", 0, self.recipe.filter_recipe(None).networks[0]
            ),
            "pipeline": lambda: self.recipe,
        }[name]()
        path = self.folder / f"{name}{len(list(self.folder.glob('*.toml')))}.toml"
        path.write_text(toml(recipe_values(values) | changes))
        return path


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory) -> Pipeline:
    folder = tmp_path_factory.mktemp("pipeline")
    network = save_tiny_network(folder / "network", seed=0)
    pool = write_pool(folder / "pool", shards=SHARDS, samples=SAMPLES)
    tar = TarBuilder()
    for number in range(12):
        tar.member(f"{number:04d}.jpg", photo(number))
        tar.member(f"{number:04d}.cls", str(number % LABELS))
    (folder / "set").mkdir()
    (folder / "set/0.tar").write_bytes(tar.getvalue())
    model = {"model": f"local-dir:{network}"}
    evaluated = {
        "name": "small",
        "pool": {"uri": [str(folder / "set")]},
        "classnames": [f"class {n}" for n in range(LABELS)],
        "templates": ["{}"],
    }
    values = {
        "run_uri": str(folder / "pipeline"),
        "pool": {"uri": [str(pool)], "chunk_rows": 5},
        "arms": ["dfn"],
        "filter": {
            "networks": [{"name": "dfn", **model}],
            "select": {"keep_fraction": 0.5},
            "scorers": {"threads": 1},
            # So that there is a moment with some, but not all, committed.
            "calibration": {"shards": 1, "samples": SAMPLES},
            "execution": {"chunks_per_part": 1},
        },
        "train": {
            "model": {**model, "random_weights_seed": 0},
            "samples_seen": SAMPLES_SEEN,
            "batch_size": 16,
            "checkpoints": {"every_samples": 96},
            "optimizer": {"warmup_steps": 1},
            "workers": {"threads": 1},
        },
        "evaluate": {"sets": [evaluated], "scorers": {"threads": 1}},
    }
    return Pipeline(folder, recipe_from(values, kind=PipelineRecipe))


def toml(values: Mapping[str, Any]) -> str:
    """Plain values as TOML, one setting per line."""
    return "".join(
        f"{key} = {_toml(value)}\n" for key, value in values.items() if value is not None
    )


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        items = [f"{key} = {_toml(item)}" for key, item in value.items() if item is not None]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
