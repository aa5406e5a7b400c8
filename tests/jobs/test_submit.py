"""`dfn-ray submit`: rejected input, printed output, and the job's exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import zipfile
from pathlib import Path
from typing import ClassVar

import pytest
import ray
from ray._private.runtime_env.packaging import create_package

from dfn_ray.cli import run
from dfn_ray.cli.job import Job, command_line
from dfn_ray.errors import RecipeError
from tests.jobs.conftest import Pipeline

RECIPE = (
    'run_uri = "{run}"\npool = {{uri = "{pool}"}}\nnetworks = [{{model = "ViT-B-32", '
    "random_weights_seed = 0}}]\n"
)


def recipe_file(folder: Path, *, run: str | None = None) -> Path:
    """A valid recipe over an absent pool."""
    path = folder / "my recipe [1].toml"
    path.write_text(RECIPE.format(run=run or folder / "run", pool=folder / "nothing"))
    return path


@pytest.mark.ray
def test_the_exit_code_is_the_jobs_and_the_printed_command_does_the_same(cluster, tmp_path):
    told = cluster.run(
        "dfn-ray", "submit", "filter", str(recipe_file(tmp_path)),
        "--set", "select.keep_fraction=0.5",
        "--address", cluster.head.address, AWS_SECRET_ACCESS_KEY="do-not-tell",
    )  # fmt: skip
    assert told.returncode == 2, told.stdout + told.stderr
    assert f"{tmp_path}/nothing" in told.stdout
    assert "failed with exit code 2" in told.stderr

    line, submitted, *_ = told.stdout.splitlines()
    job_id = submitted.removeprefix("submitted ")
    other = line.replace("ray job submit", "ray job submit --no-wait").replace(job_id, "by-hand")
    assert cluster.run("bash", "-c", other).returncode == 0
    cluster.client.stop_job("by-hand")
    first, second = (cluster.client.get_job_info(name) for name in (job_id, "by-hand"))
    assert first.entrypoint == second.entrypoint
    assert first.runtime_env == second.runtime_env
    everything = (
        told.stdout
        + told.stderr
        + json.dumps([first.model_dump(), second.model_dump()], default=str)
    )
    assert "do-not-tell" not in everything
    assert cluster.head.token not in everything


@pytest.mark.ray
def test_ctrl_c_leaves_the_job_and_a_second_submit_of_its_run_is_refused(
    cluster, pipeline: Pipeline
):
    endless = pipeline.file("train", run_uri=str(pipeline.folder / "endless"), samples_seen=10**9)
    pool = f"sources.0.pool.uri={pipeline.folder}/pool"
    address = cluster.head.address
    command = ["dfn-ray", "submit", "train", str(endless), "--set", pool, "--address", address]
    # A test that runs in the background inherits that SIGINT is ignored.
    following = cluster.start("env", "--default-signal=INT", *command)
    lines = iter(following.stdout.readline, "")
    job_id = next(line for line in lines if line.startswith("submitted ")).split()[1]
    next(line for line in lines if "Running entrypoint" in line)

    refused = cluster.run(*command, "--no-wait")
    assert refused.returncode == 2
    assert f"job {job_id} is already running on it" in refused.stderr

    following.send_signal(signal.SIGINT)
    said = following.stdout.read()
    assert following.wait() == 1
    assert f"no longer following {job_id}; the job continues" in said
    assert f"ray job stop --address {cluster.head.address} {job_id}" in said
    assert "Traceback" not in said
    assert cluster.client.get_job_status(job_id) == "RUNNING"
    cluster.client.stop_job(job_id)
    while not cluster.client.get_job_status(job_id).is_terminal():
        time.sleep(0.1)


@pytest.mark.ray
def test_a_cluster_that_denies_access_is_reported(cluster, tmp_path):
    recipe, address = str(recipe_file(tmp_path)), cluster.head.address
    command = ["dfn-ray", "submit", "filter", recipe, "--address", address]
    for changes in (
        {"RAY_AUTH_TOKEN": "0" * 64},
        {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""},
        {"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "", "HOME": str(tmp_path)},
    ):
        told = cluster.run(*command, **changes)
        assert told.returncode == 2
        assert "refuses access" in told.stderr
        assert "RAY_AUTH_TOKEN" in told.stderr
        assert "Traceback" not in told.stderr


@pytest.fixture
def silent_address():
    """An address that accepts connections and never responds."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_address_that_does_not_respond_is_reported_within_seconds(
    tmp_path, silent_address, capsys, monkeypatch
):
    monkeypatch.setattr("dfn_ray.cli.submit.ANSWER_S", 1.0)
    recipe = str(recipe_file(tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    for address in (nobody, silent_address):
        start = time.monotonic()
        assert run(["submit", "filter", recipe, "--address", address]) == 2
        assert time.monotonic() - start < 5
        assert f"{address}: no Ray dashboard answers" in capsys.readouterr().err
    assert run(["submit", "filter", recipe, "--address", "head:8265"]) == 2
    assert "need the address of the dashboard, such as http://" in capsys.readouterr().err


def test_an_invalid_recipe_is_rejected_before_any_request_to_the_cluster(tmp_path, capsys):
    recipe = str(recipe_file(tmp_path))
    nobody = ["--address", "http://127.0.0.1:9"]
    assert run(["submit", "filter", recipe, "--set", "decode.mode=fst", *nobody]) == 2
    assert "decode.mode" in capsys.readouterr().err
    assert run(["submit", "train", recipe, *nobody]) == 2
    assert "networks: no such setting" in capsys.readouterr().err


def test_a_run_in_the_jobs_own_folder_is_refused(tmp_path, capsys):
    recipe = str(recipe_file(tmp_path, run="runs/mine"))
    assert run(["submit", "filter", recipe, "--address", "http://127.0.0.1:9"]) == 2
    assert (
        "run_uri: runs/mine is relative, so it would be in the job's working directory"
        in capsys.readouterr().err
    )


def test_a_dry_run_prints_the_command_and_asks_nobody(tmp_path, capsys):
    recipe = str(recipe_file(tmp_path))
    assert run(["submit", "filter", recipe, "--dry-run", "--address", "http://127.0.0.1:9"]) == 0
    said = capsys.readouterr().out
    resolved, end = json.JSONDecoder().raw_decode(said)
    assert resolved["run_uri"] == f"{tmp_path}/run"
    assert said[end:].strip().startswith("ray job submit --address http://127.0.0.1:9 ")


def test_the_recipe_alone_travels(tmp_path):
    path = recipe_file(tmp_path)
    for other in ("my recipe 1.toml", "huge.bin", "sub/my recipe [1].toml"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_bytes(b"stays here")
    job = Job(verb="filter", recipe=str(path), run_uri="s3://b/run")
    package = tmp_path.with_suffix(".zip")
    create_package(str(job.folder), package, include_gitignore=True, excludes=job.excludes)
    with zipfile.ZipFile(package) as sent:
        assert sent.namelist() == [path.name]


def test_a_named_folder_travels_whole_and_must_hold_the_recipe(tmp_path):
    path = recipe_file(tmp_path)
    (tmp_path / "other").mkdir()
    job = Job(verb="filter", recipe=str(path), run_uri="s3://b/run", working_dir=str(tmp_path))
    assert (job.folder, job.excludes) == (str(tmp_path), [])
    assert job.entrypoint == "python -m dfn_ray.cli filter 'my recipe [1].toml'"
    with pytest.raises(RecipeError, match="is not in --working-dir"):
        Job(
            verb="filter",
            recipe=str(path),
            run_uri="s3://b/run",
            working_dir=str(tmp_path / "other"),
        )


def test_a_recipe_on_object_storage_is_read_there_by_the_job():
    job = Job(verb="train", recipe="s3://b/recipe.toml", run_uri="s3://b/run")
    assert command_line(job, "http://h:8265", "one") == (
        "ray job submit --address http://h:8265 --submission-id one -- "
        "python -m dfn_ray.cli train s3://b/recipe.toml"
    )


def test_jobs_of_one_run_are_known_by_its_uri():
    jobs = [
        Job(verb=verb, recipe="s3://b/recipe.toml", run_uri=run_uri)
        for verb, run_uri in (("score", "s3://b/run"), ("filter", "s3://b/run/"), ("filter", "s3://b/run2"))
    ]  # fmt: skip
    score, filtering, other = jobs
    assert score.run_digest == filtering.run_digest != other.run_digest
    assert filtering.new_id().startswith(f"filter-run-{filtering.run_digest}-")


@pytest.fixture
def starting_head():
    """A dashboard without an agent in its first responses, as just after its start."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Head(BaseHTTPRequestHandler):
        refusals = 2
        submitted: ClassVar[list[dict]] = []

        def answer(self, status: int, value: object) -> None:
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            if self.path.startswith("/api/version"):
                version = {"version": "4", "ray_version": ray.__version__, "ray_commit": "x"}
                self.answer(200, version)
            else:
                self.answer(200, [] if self.path.startswith("/api/jobs") else {})

        def do_PUT(self) -> None:
            self.answer(200, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if Head.refusals > 0:
                Head.refusals -= 1
                self.answer(500, b"No available agent to submit job, please try again later.")
                return
            Head.submitted.append(body)
            self.answer(200, {"job_id": "1", "submission_id": body["submission_id"]})

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Head) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", Head
        server.shutdown()
        thread.join()


def test_a_head_that_has_just_started_is_waited_for(tmp_path, starting_head, capsys, monkeypatch):
    address, head = starting_head
    monkeypatch.setattr("dfn_ray.cli.submit.AGENT_POLL_S", 0.05)
    command = ["submit", "filter", str(recipe_file(tmp_path)), "--address", address, "--no-wait"]
    assert run(command) == 0
    assert len(head.submitted) == 1
    assert (
        capsys.readouterr().out.count(
            "the cluster cannot accept jobs yet (no job agent); retrying for up to 60 s"
        )
        == 1
    )
    head.refusals = 10**6
    monkeypatch.setattr("dfn_ray.cli.submit.AGENT_WAIT_S", 0.3)
    assert run(command) == 2
    assert "No available agent" in capsys.readouterr().err


def test_a_submit_goes_to_its_own_address_and_leaves_the_environment_as_it_was(
    tmp_path, starting_head, monkeypatch
):
    """Ray's client would use the address in the environment."""
    address, head = starting_head
    head.refusals = 0
    command = ["submit", "filter", str(recipe_file(tmp_path)), "--address", address, "--no-wait"]
    names = {"RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"}
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for changes in ({}, dict.fromkeys(names, "http://127.0.0.1:9")):
        for name, value in changes.items():
            monkeypatch.setenv(name, value)
        head.submitted.clear()
        assert run(command) == 0
        assert len(head.submitted) == 1
        assert {name: os.environ[name] for name in names & os.environ.keys()} == changes
