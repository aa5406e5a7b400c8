"""Every `jobs/` command that cluster files, the README and the jobs themselves tell people to run, run on a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.cluster_commands import JobCommand, job_commands
from tests.jobs.conftest import ROOT, Story

pytestmark = pytest.mark.ray

STAND_INS = {
    "jobs/filter_pool.py": "filter",
    "jobs/train_clip.py": "train",
    "jobs/evaluate_clip.py": "evaluate",
    "jobs/pipeline.py": "pipeline",
}


def offline(command: JobCommand, story: Story) -> str:
    """The command as a dry run: with all its arguments, its recipe a local one or its recipe's data local ones."""
    named, *arguments = command.arguments
    own = story.file(STAND_INS[command.job])
    recipe = Path("cluster") / Path(named).name
    if not (ROOT / recipe).exists():
        return shlex.join(["python", command.job, str(own), *arguments, "--dry-run"])
    pool = "sources.0.pool.uri" if "train" in command.job else "pool.uri"
    local = [f"{pool}={story.folder}/pool", f"run_uri={story.folder}/offline"]
    sets = [word for setting in local for word in ("--set", setting)]
    return shlex.join(["python", command.job, str(recipe), *arguments, *sets, "--dry-run"])


def test_every_command_that_people_are_told_to_run_does(cluster, story: Story):
    commands = {offline(command, story).partition(" ")[2]: command for command in job_commands()}
    assert {command.job for command in commands.values()} == set(STAND_INS)
    line = " && ".join(
        f"echo {shlex.quote(str(name))} && python {text}" for text, name in commands.items()
    )
    job = cluster.client.submit_job(entrypoint=line, runtime_env={"working_dir": str(ROOT)})
    while not (status := cluster.client.get_job_status(job)).is_terminal():
        pass
    assert status == "SUCCEEDED", cluster.client.get_job_logs(job)
