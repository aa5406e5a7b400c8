"""Every job, submitted to a real Ray head: results, exit codes, logs, and a stop during the run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import time
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dfn_ray.cli.main import STOPPED
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.selecting.selection_table import selection_table
from dfn_ray.training.train_clip import train
from tests.jobs.conftest import ROOT, SAMPLES, SAMPLES_SEEN, SHARDS, Pipeline

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RAYS_OWN = re.compile(r".* Runtime env is setting up\.|Running entrypoint for job .*")
"""The line that Ray's job server writes at the top of every log."""
FILTERING = (
    r"3 shards, \d of them scored before; run .*",
    r"calibrating on 1 shards",
    r"threshold expected between .*",
    r"scoring +[\d.]+% \| .* samples \| .*",
)
"""The lines of a filter job except its table: no output of Ray's workers, no progress bars."""
TRAINING = (
    r"source dfn: 30 samples read, 30 used per pass; 0 failed; 0 of \d+ shards bad",
    r"training +[\d.]+% \| .* samples seen \| .*",
)
NETWORK = "network/open_clip_model.safetensors"
MIDRUN_S = 180.0
"""It takes 10 s on an idle machine."""
POLL_S = 0.3
STOPS = 3
"""Attempts: on a busy machine the stop may arrive after the job is done."""


def submit(cluster, *command: str) -> str:
    """Submits with Ray's client and the checkout as working directory; returns the id."""
    return cluster.client.submit_job(
        entrypoint=shlex.join(command), runtime_env={"working_dir": str(ROOT)}
    )


def by_ray(cluster, script: str, recipe: Path, *arguments: str) -> list[str]:
    """The same by Ray's command line, as from a clone of the repository."""
    address = ["--address", cluster.head.address]
    job = ["python", script, str(recipe), *arguments]
    return ["ray", "job", "submit", *address, "--working-dir", ".", "--", *job]


def wait(cluster, job: str) -> tuple[str, list[str]]:
    """The job's final status, and the lines of its log that are not Ray's own."""
    while not (status := cluster.client.get_job_status(job)).is_terminal():
        time.sleep(POLL_S)
    return str(status.value), lines_of(cluster.client.get_job_logs(job))


def lines_of(log: str) -> list[str]:
    return [line for line in log.splitlines() if line and not RAYS_OWN.fullmatch(line)]


def strays(lines: list[str], *expected: str) -> list[str]:
    """The lines that are not expected."""
    return [line for line in lines if not any(re.fullmatch(pattern, line) for pattern in expected)]


@dataclass(frozen=True)
class Begun:
    """Independent jobs, started together because a small job mostly waits for its processes."""

    evaluate: str
    wrong: subprocess.Popen[str]


@pytest.fixture(scope="module")
def begun(cluster, pipeline: Pipeline) -> Begun:
    evaluate = pipeline.file("evaluate", run_uri=str(pipeline.folder / "evaluated"))
    wrong = pipeline.file("filter", run_uri=str(pipeline.folder / "wrong"))
    return Begun(
        submit(cluster, "python", "jobs/evaluate_clip.py", str(evaluate)),
        cluster.start(*by_ray(cluster, "jobs/filter_pool.py", wrong, "--set", "decode.mode=fst")),
    )


@dataclass(frozen=True)
class Filtered:
    """A filter job that was stopped during its run and submitted again."""

    parts: dict[str, int]
    """Parts committed when it was stopped, with their write times."""
    stopped: list[str]
    """Log of the stopped job."""
    told: subprocess.CompletedProcess[str]
    """Output of the second `ray job submit`."""
    selection: dict


@pytest.fixture(scope="module")
def filtered(cluster, pipeline: Pipeline, begun) -> Filtered:
    recipe, run = pipeline.file("filter"), Path(pipeline.recipe.uri("filter"))
    stopped = stop_in_midrun(
        cluster, "jobs/filter_pool.py", recipe, begun="scores/part-*.parquet", done="selection.json"
    )
    parts = written(run)
    told = cluster.run(*by_ray(cluster, "jobs/filter_pool.py", recipe))
    assert told.returncode == 0, told.stdout + told.stderr
    return Filtered(parts, stopped, told, json.loads((run / "selection.json").read_text()))


def test_a_stopped_job_reports_it_in_a_line(filtered):
    *before, last = filtered.stopped
    assert last == f"dfn-ray filter: {STOPPED}"
    assert not strays(before, *FILTERING)


def test_a_stopped_job_submitted_again_resumes_from_its_commits(pipeline: Pipeline, filtered):
    now = written(Path(pipeline.recipe.uri("filter")))
    assert {name: now[name] for name in filtered.parts} == filtered.parts
    assert len(now) > len(filtered.parts) > 0


def test_a_filter_job_streams_few_lines_and_ends_in_its_table(cluster, pipeline, filtered):
    (job,) = (j for j in cluster.client.list_jobs() if j.submission_id in filtered.told.stdout)
    assert (job.status, job.driver_exit_code) == ("SUCCEEDED", 0)
    lines = lines_of(cluster.client.get_job_logs(job.submission_id))
    table = selection_table(pipeline.recipe.uri("filter"), filtered.selection).splitlines()
    assert lines[-len(table) :] == table
    assert not strays(lines[: -len(table)], *FILTERING)
    assert "\n".join(lines) in filtered.told.stdout  # streamed as it stands


def test_a_stopped_and_resumed_job_ends_as_if_undisturbed(local_ray, pipeline: Pipeline, filtered):
    undisturbed, run = pipeline.folder / "undisturbed", Path(pipeline.recipe.uri("filter"))
    recipe = replace(pipeline.recipe.filter_recipe(None), run_uri=str(undisturbed))
    # Parts and files are named after the attempts that wrote them.
    of_attempts = ("parts", "files", "sha256")
    expected = {k: v for k, v in filtered.selection.items() if k not in of_attempts}
    found = {k: v for k, v in filter_pool(recipe).items() if k not in of_attempts}
    assert found == expected
    assert (filtered.selection["samples"], filtered.selection["k"]) == (SHARDS * SAMPLES, 30)
    for name in ("subset_uids.npy", "pool.parquet"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes()
    for folder in ("scores", "subset"):
        assert rows_of(run / folder) == rows_of(undisturbed / folder)


def test_what_dfn_ray_submit_runs_ends_in_its_table_and_in_exit_code_0(
    cluster, pipeline: Pipeline, filtered
):
    recipe = str(pipeline.file("filter"))
    told = cluster.run("dfn-ray", "submit", "select", recipe, "--address", cluster.head.address)
    assert told.returncode == 0, told.stdout + told.stderr
    table = selection_table(pipeline.recipe.uri("filter"), filtered.selection)
    assert told.stdout.strip().endswith(table)


def test_a_wrong_recipe_fails_the_job_with_its_mistakes_in_the_log(
    cluster, pipeline: Pipeline, begun
):
    said, _ = begun.wrong.communicate()
    assert begun.wrong.returncode == 1
    assert "dfn-ray filter: the recipe is invalid:\n  decode.mode: " in said
    (job,) = (job for job in cluster.client.list_jobs() if "decode.mode=fst" in job.entrypoint)
    assert (job.status, job.driver_exit_code) == ("FAILED", 2)
    assert "exit code 2" in job.message
    assert not (pipeline.folder / "wrong").exists()


@dataclass(frozen=True)
class Trained:
    """A train job that was stopped during its run and submitted again."""

    stopped: list[str]
    """Log of the stopped job."""
    status: str
    """Final status of the second one."""
    lines: list[str]


@pytest.fixture(scope="module")
def trained(cluster, pipeline: Pipeline, filtered) -> Trained:
    """The train job on the filter job's subset, where the pipeline looks for it."""
    recipe = pipeline.file("train")
    stopped = stop_in_midrun(
        cluster, "jobs/train_clip.py", recipe, begun="checkpoints/*", done=NETWORK
    )
    job = submit(cluster, "python", "jobs/train_clip.py", str(recipe))
    return Trained(stopped, *wait(cluster, job))


def test_a_train_job_trains_on_what_the_filter_job_kept(pipeline: Pipeline, trained):
    assert trained.status == "SUCCEEDED", trained.lines
    run = Path(pipeline.recipe.uri("train", "dfn", "seed-0"))
    *before, seen, steps, failed, network, source = trained.lines
    assert [" ".join(line.split()) for line in (seen, steps, failed, network)] == [
        f"samples seen {SAMPLES_SEEN:,}",
        f"steps {SAMPLES_SEEN // 16:,}",
        "failed 0",
        f"network {run}/network",
    ]
    assert re.fullmatch(r"source dfn: 30 samples read; 30 usable; 0 of \d+ shards bad", source)
    assert not strays(before, *TRAINING, r"resuming at \d+ samples; .*")


def test_a_stopped_train_job_submitted_again_ends_as_if_undisturbed(
    local_ray, pipeline: Pipeline, trained
):
    *before, last = trained.stopped
    assert last == f"dfn-ray train: {STOPPED}"
    assert not strays(before, *TRAINING)
    assert any(line.startswith("resuming at ") for line in trained.lines)
    undisturbed = pipeline.folder / "undisturbed-train"
    train(replace(pipeline.train_recipe, run_uri=str(undisturbed)))
    run = Path(pipeline.recipe.uri("train", "dfn", "seed-0"))
    assert (run / NETWORK).read_bytes() == (undisturbed / NETWORK).read_bytes()


def test_an_evaluate_job_writes_the_metrics_of_its_sets(cluster, pipeline: Pipeline, begun):
    status, lines = wait(cluster, begun.evaluate)
    assert status == "SUCCEEDED", lines
    (stored,) = (pipeline.folder / "evaluated/eval").glob("*.json")
    result = json.loads(stored.read_text())
    assert result["dataset"] == "small"
    assert 0 <= result["metrics"]["acc1"] <= 1
    header, row = lines[-2:]
    assert header.split() == ["set", "task", "main", "metric", "images", "failed"]
    assert row.split() == [
        "small", "zeroshot_classification", "acc1", f"{result['metrics']['acc1']:.4f}", "12", "0",
    ]  # fmt: skip
    assert not strays(
        lines[:-2],
        r"\S+: 1 sets, 0 of them already evaluated",
        r"embedding 4 prompts",
        r"evaluating +[\d.]+% \| .*",
    )


def test_a_pipeline_job_takes_up_what_the_other_jobs_made(
    cluster, pipeline: Pipeline, filtered, trained
):
    run_folder = Path(pipeline.recipe.run_uri)
    before = {
        path: path.stat().st_mtime_ns
        for pattern in ("*.safetensors", "subset/*.parquet", "scores/*.parquet")
        for path in run_folder.rglob(pattern)
    }
    recipe = str(pipeline.file("pipeline"))
    status, lines = wait(cluster, submit(cluster, "python", "jobs/pipeline.py", recipe))
    assert status == "SUCCEEDED", lines
    assert {path: path.stat().st_mtime_ns for path in before} == before
    value = json.loads((run_folder / "comparison.json").read_text())
    assert set(value["metrics"]["small, acc1"]["arms"]) == {"dfn"}
    assert (run_folder / "comparison.png").stat().st_size > 0
    assert lines[-1] == f"picture: {run_folder}/comparison.png"


def stop_in_midrun(cluster, script: str, recipe: Path, *, begun: str, done: str) -> list[str]:
    """Submits a job and stops it once `begun` exists but not yet `done`; returns its log."""
    run = Path(tomllib.loads(recipe.read_text())["run_uri"])
    for _ in range(STOPS):
        job = submit(cluster, "python", script, str(recipe))
        await_midrun(cluster, job, run, begun)
        cluster.client.stop_job(job)
        status, log = wait(cluster, job)
        if not (run / done).exists():
            assert status == "STOPPED"
            return log
        shutil.rmtree(run)  # It was too late to stop it.
    pytest.fail(f"{script} was done before it could be stopped, {STOPS} times")


def await_midrun(cluster, job: str, run: Path, begun: str) -> None:
    """Waits for a commit: the calibration's one shard of three, or a training step."""
    deadline = time.monotonic() + MIDRUN_S
    while not list(run.glob(begun)):
        ended = cluster.client.get_job_status(job).is_terminal()
        assert not ended, cluster.client.get_job_logs(job)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def written(run: Path) -> dict[str, int]:
    """The committed parts and their write times."""
    return {path.name: path.stat().st_mtime_ns for path in run.glob("scores/part-*.parquet")}


def rows_of(folder: Path) -> list[dict]:
    rows = [row for path in folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    return sorted(rows, key=lambda row: (row["shard"], row["row"]))
