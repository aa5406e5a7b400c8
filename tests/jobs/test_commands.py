"""Runs every `jobs/` command of the cluster files, the README and the jobs on a cluster."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import pytest

from tests.cluster_commands import JobCommand, job_commands
from tests.jobs.conftest import ROOT, Pipeline

pytestmark = pytest.mark.ray

STAND_INS = {
    "jobs/filter_pool.py": "filter",
    "jobs/train_clip.py": "train",
    "jobs/evaluate_clip.py": "evaluate",
    "jobs/pipeline.py": "pipeline",
}
POOLS = {"jobs/filter_pool.py": "pool.uri", "jobs/train_clip.py": "sources.0.pool.uri"}


def offline(command: JobCommand, pipeline: Pipeline) -> list[str]:
    """The command as a dry run on local data, with its own recipe or a small one of its kind."""
    named, *arguments = command.arguments
    recipe = Path("cluster") / Path(named).name
    if not (ROOT / recipe).exists():
        recipe = pipeline.file(STAND_INS[command.job])
    local = [f"run_uri={pipeline.folder}/offline"]
    if command.job in POOLS:
        local.append(f"{POOLS[command.job]}={pipeline.folder}/pool")
    sets = [word for setting in local for word in ("--set", setting)]
    return ["python", command.job, str(recipe), *arguments, *sets, "--dry-run"]


def test_every_documented_command_runs(cluster, pipeline: Pipeline):
    commands = {(c.job, c.arguments): c for c in job_commands()}.values()
    assert {command.job for command in commands} == set(STAND_INS)
    steps = [
        step
        for command in commands
        for step in (["echo", str(command)], offline(command, pipeline))
    ]
    line = " && ".join(map(shlex.join, steps))
    job = cluster.client.submit_job(entrypoint=line, runtime_env={"working_dir": str(ROOT)})
    while not (status := cluster.client.get_job_status(job)).is_terminal():
        time.sleep(0.3)
    assert status == "SUCCEEDED", cluster.client.get_job_logs(job)
