"""`dfn-ray submit`: a verb as a job of a Ray cluster, handed to the cluster's dashboard.

Only the recipe's file travels, or with `working_dir` all of that folder; else dfn_ray must be on the cluster, in its
image. No variable of this machine goes along: credentials for storage are the cluster's own.

The command that `command_line` gives does the same, so whoever outgrows this one knows how to go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, TextIO

import aiohttp
import requests
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from dfn_ray.errors import InputError, JobDetachedError, JobFailedError, RecipeError, last_line

ANSWER_S = 10.0
"""A dashboard that does not answer a request by then is told to be absent. Ray itself would wait for minutes."""
POLL_S = 0.5
AGENT_WAIT_S, AGENT_POLL_S = 60.0, 2.0
_NO_AGENT = "No available agent to submit job"
"""What a dashboard (ray 2.60) answers, with 500, as long as no node's agent has reported to it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A verb over a recipe, to be run on a cluster. Raises RecipeError for what cannot work there."""

    verb: str
    recipe: str
    """A file of this machine, or what the cluster finds by itself: a URI, `demo`."""
    run_uri: str
    """Of that recipe."""
    overrides: tuple[str, ...] = ()
    working_dir: str | None = None
    """Folder that travels instead of the recipe alone, `.gitignore` and `.rayignore` honoured; it holds the recipe."""

    def __post_init__(self) -> None:
        if "://" not in self.run_uri and not os.path.isabs(self.run_uri):
            raise RecipeError(
                [
                    f"run_uri: {self.run_uri} would be in a job's working folder, which Ray deletes; need a URI, or a "
                    "path from the root that every node of the cluster sees"
                ]
            )
        if self.working_dir is not None and self._travels:
            self._recipe_there()

    @property
    def entrypoint(self) -> str:
        """The command that the cluster runs."""
        sets = [word for override in self.overrides for word in ("--set", override)]
        command = ["python", "-m", "dfn_ray.cli", self.verb, self._recipe_there(), *sets]
        return shlex.join(command)

    @property
    def excludes(self) -> list[str]:
        """Patterns, as in a .gitignore, of what stays here: everything but the recipe, unless a folder was named."""
        if self.working_dir is not None or not self._travels:
            return []
        name = re.sub(r"([\\*?\[\]])", r"\\\1", Path(self.recipe).name)
        return ["*", "!.", f"!/{name}"]

    @property
    def folder(self) -> str | None:
        """What travels, but for `excludes`."""
        if self.working_dir is not None:
            return str(Path(self.working_dir).resolve())
        return str(Path(self.recipe).resolve().parent) if self._travels else None

    @property
    def run_digest(self) -> str:
        """Stands for `run_uri` in the ids of its jobs."""
        return hashlib.sha256(self.run_uri.rstrip("/").encode()).hexdigest()[:10]

    def new_id(self) -> str:
        """An id for submitting it now: verb, run and time, so that a list of jobs can be read."""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.run_uri.rstrip("/").rpartition("/")[2])
        return f"{self.verb}-{name}-{self.run_digest}-{time.strftime('%Y%m%d-%H%M%S')}"

    @property
    def _travels(self) -> bool:
        return "://" not in self.recipe and Path(self.recipe).exists()

    def _recipe_there(self) -> str:
        """The recipe as the job finds it."""
        if not self._travels:
            return self.recipe
        path, folder = Path(self.recipe).resolve(), self.folder
        assert folder is not None
        if not path.is_relative_to(folder):
            raise RecipeError(
                [f"{path}: is not in --working-dir {folder}, which is all that travels"]
            )
        return str(path.relative_to(folder))


def command_line(job: Job, address: str, job_id: str) -> str:
    """The `ray job submit` that submits this job."""
    words = ["ray", "job", "submit", "--address", address, "--submission-id", job_id]
    if job.folder is not None:
        words += ["--working-dir", job.folder]
    if job.excludes:
        words += ["--runtime-env-json", json.dumps({"excludes": job.excludes})]
    return f"{shlex.join(words)} -- {job.entrypoint}"


def submit(job: Job, address: str, *, follow: bool, stream: TextIO) -> None:
    """Submit the job and, with `follow`, stream its log until it has succeeded.

    Raises InputError when no cluster answers at `address`, when it does not let us in, and when a job for the same run
    is at work there; JobFailedError, with the job's exit code, when the job fails or is stopped; JobOutOfSightError when
    Ctrl-C or the network ends the following: the job goes on.
    """
    address = address.rstrip("/")
    with _told(address):
        client = _connect(address)
        for other in client.list_jobs():
            if not other.status.is_terminal() and f"-{job.run_digest}-" in str(other.submission_id):
                raise InputError(
                    f"{job.run_uri}: job {other.submission_id} is at work on it. One driver per run: wait for it, or "
                    f"stop it and submit again, which goes on from what is committed\n{_next_steps(address, str(other.submission_id))}"
                )
        job_id = job.new_id()
        _write(stream, command_line(job, address, job_id) + "\n")
        runtime_env: dict[str, Any] = {"working_dir": job.folder} if job.folder else {}
        if job.excludes:
            runtime_env["excludes"] = job.excludes
        with_agent = partial(
            client.submit_job,
            entrypoint=job.entrypoint, submission_id=job_id, runtime_env=runtime_env,
        )  # fmt: skip
        _once_agents_run(with_agent, address, stream)
    _write(stream, f"submitted {job_id}\n{_next_steps(address, job_id)}\n")
    if follow:
        _follow(client, address, job_id, stream)


def _once_agents_run(submit_job: Callable[[], Any], address: str, stream: TextIO) -> None:
    """Submit, again and again for `AGENT_WAIT_S` while the cluster says that it cannot take jobs yet.

    A head that has just started answers before its agent, which starts jobs, does.
    """
    end, waited = time.monotonic() + AGENT_WAIT_S, False
    while True:
        try:
            submit_job()
        except RuntimeError as error:
            if _NO_AGENT not in str(error) or time.monotonic() >= end:
                raise
            if not waited:
                _write(
                    stream,
                    f"{address}: has no agent for jobs yet; trying for up to {AGENT_WAIT_S:.0f} s\n",
                )
            waited = True
            time.sleep(AGENT_POLL_S)
        else:
            return


def _follow(client: JobSubmissionClient, address: str, job_id: str, stream: TextIO) -> None:
    try:
        asyncio.run(_stream_log(client, job_id, stream))
        while not (info := client.get_job_info(job_id)).status.is_terminal():
            time.sleep(POLL_S)
    except (KeyboardInterrupt, RuntimeError, aiohttp.ClientError, requests.RequestException) as end:
        why = "" if isinstance(end, KeyboardInterrupt) else f" ({last_line(end)})"
        raise JobDetachedError(
            f"no longer following {job_id}{why}; it goes on\n{_next_steps(address, job_id)}"
        ) from end
    if info.status == JobStatus.SUCCEEDED:
        return
    if info.status == JobStatus.STOPPED:
        raise JobFailedError(
            f"{job_id} was stopped; what is committed stays, submitting it again goes on from there"
        )
    if info.driver_exit_code is None:
        # It has no log of its own then: the cluster could not start or lost it.
        raise JobFailedError(f"{job_id} failed: {info.message}")
    raise JobFailedError(
        f"{job_id} failed with exit code {info.driver_exit_code}; its log above says why",
        exit_code=info.driver_exit_code,
    )


async def _stream_log(client: JobSubmissionClient, job_id: str, stream: TextIO) -> None:
    async for text in client.tail_job_logs(job_id):
        _write(stream, text)


def _connect(address: str) -> JobSubmissionClient:
    if not address.startswith(("http://", "https://")):
        raise InputError(f"--address {address}: need the dashboard's, as http://HEAD:8265")
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=ANSWER_S).close()
    except urllib.error.HTTPError:
        pass  # An answer; Ray's client says what is wrong with it.
    except (OSError, HTTPException) as error:
        why = getattr(error, "reason", error)
        raise InputError(
            f"{address}: no Ray dashboard answers ({why}); is the cluster up, and its port 8265 forwarded to here "
            "(ray dashboard CLUSTER.yaml, kubectl port-forward)?"
        ) from None
    with _address_in_environment(address):
        return JobSubmissionClient(address)


@contextmanager
def _address_in_environment(address: str) -> Iterator[None]:
    """Sets RAY_API_SERVER_ADDRESS for a while.

    Ray's client prefers this variable, and RAY_ADDRESS after it, to the address that it is given (ray 2.60).
    """
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _told(address: str) -> Iterator[None]:
    """What Ray's client raises, as an InputError that says what to do."""
    try:
        yield
    except AuthenticationError as error:
        why, *_ = re.split(r"\n|\. ", str(error))  # Advice follows, in paragraphs.
        raise InputError(
            f"{address}: does not let us in: {why}; set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token (ray get-auth-token on its head)"
        ) from None
    except (
        RuntimeError,
        ValueError,
        ConnectionError,
        RayError,
        requests.RequestException,
    ) as error:
        raise InputError(f"{address}: does not take the job: {last_line(error)}") from error


def _next_steps(address: str, job_id: str) -> str:
    return (
        f"  follow: ray job logs --address {address} --follow {job_id}\n"
        f"  stop:   ray job stop --address {address} {job_id}"
    )


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()
