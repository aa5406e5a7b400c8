"""The recipes, the README and every command in cluster/."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dfn_ray.cli import run
from dfn_ray.config import Recipe, TrainRecipe
from dfn_ray.config.recipe_files import load_recipe
from tests.cluster_commands import ROOT, JobCommand, job_commands
from tests.cluster_files.files import (
    CLUSTER,
    KUBERAY,
    autoscaling_config,
    groups_of,
    loaded,
    ray_parses,
)

RECIPES = {"recipe.toml": Recipe, "train.toml": TrainRecipe}
VERBS = {
    "jobs/filter_pool.py": "filter",
    "jobs/train_clip.py": "train",
    "jobs/evaluate_clip.py": "evaluate",
    "jobs/pipeline.py": "pipeline",
}


@pytest.mark.parametrize(("recipe", "clusters"), [
    ("recipe.toml", ("aws", "gcp", "raycluster", "rayjob-filter")),
    ("train.toml", ("aws", "gcp", "raycluster", "rayjob-train")),
])  # fmt: skip
def test_recipes_are_valid_and_every_cluster_has_the_nodes_they_ask_for(recipe, clusters):
    loaded_recipe = load_recipe(CLUSTER / recipe, kind=RECIPES[recipe])
    actors = getattr(loaded_recipe, "scorers", None) or loaded_recipe.workers
    cpus = actors.cpus
    for name in clusters:
        types = autoscaling_config(name)["available_node_types"].values()
        score = [t for t in types if t.get("labels") == dict(actors.labels)]
        decode = [t for t in types if t.get("labels") == dict(loaded_recipe.decode.labels)]
        assert all(t["resources"]["CPU"] >= cpus for t in score)
        assert sum(t["resources"]["GPU"] * t["max_workers"] for t in score) >= actors.max_size
        assert all(t["resources"]["CPU"] >= loaded_recipe.decode.cpus for t in decode)
        assert decode


def test_what_the_cluster_files_tell_to_run_exists():
    named = {command.file.name for command in job_commands() if command.file.parent == CLUSTER}
    assert {"README.md", "rayjob-filter.yaml", "rayjob-train.yaml"} <= named


@pytest.mark.parametrize("command", job_commands(), ids=str)
def test_every_job_command_names_a_job_and_takes_its_arguments(command: JobCommand):
    """The job exists and its arguments parse; tests/jobs runs the commands on a cluster."""
    assert (ROOT / command.job).is_file()
    assert run([VERBS[command.job], *command.arguments, "--help"]) == 0
    recipe = command.arguments[0]
    if command.file.parent == CLUSTER:
        assert (CLUSTER / Path(recipe).name).is_file()
        assert not recipe.startswith("/") or recipe == f"/recipes/{Path(recipe).name}"


def test_the_jobs_recipes_come_with_the_config_map_that_the_readme_makes():
    readme = (CLUSTER / "README.md").read_text()
    (made,) = set(re.findall(r"kubectl create configmap (\S+)", readme))
    sources = set(re.findall(r"--from-file=cluster/(\S+)", readme))
    for name in KUBERAY:
        head = groups_of(name)["head"]["template"]["spec"]
        (recipes,) = [v["configMap"]["name"] for v in head["volumes"] if v["name"] == "recipes"]
        assert recipes == made
    entrypoints = [loaded(name)["spec"]["entrypoint"] for name in KUBERAY[1:]]
    assert {Path(entry.split()[-1]).name for entry in entrypoints} == sources


def test_the_readme_names_only_files_that_exist():
    readme = (CLUSTER / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (CLUSTER / target).exists(), target
    for path in re.findall(r"(?<![\w/])(cluster/[\w.-]+)", readme):
        assert (ROOT / path).exists(), path


def test_the_readmes_example_adds_up():
    readme = (CLUSTER / "README.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", readme, flags=re.MULTILINE)
    for count, each, together in rows:
        assert int(count) * float(each) == pytest.approx(float(together), abs=0.005)
    (an_hour,) = re.findall(r"^\| together .*\| ([\d.]+) \|$", readme, flags=re.MULTILINE)
    assert sum(float(row[2]) for row in rows) == pytest.approx(float(an_hour), abs=0.005)
    hours = round(128e6 / (16 * 1000) / 3600 + 0.3, 1)
    assert f"= {hours} hours, so {round(hours * float(an_hour))} dollars" in readme


def test_ray_has_every_command_in_the_readme():
    lines = re.findall(r"^ray .*$", (CLUSTER / "README.md").read_text(), flags=re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        ray_parses(line)


def test_no_file_has_anything_that_looks_like_a_secret():
    for path in filter(Path.is_file, CLUSTER.rglob("*")):
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not re.search(
            r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|secret_access_key\s*[=:]", text
        )
