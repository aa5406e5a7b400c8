"""Submits a job to the dashboard of a Ray cluster and follows its log."""

from __future__ import annotations

import asyncio
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from typing import Any, TextIO

import aiohttp
import requests
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from dfn_ray.cli.job import Job, command_line
from dfn_ray.errors import InputError, JobDetachedError, JobFailedError, last_line

ANSWER_S = 10.0
"""Time within which a dashboard has to answer. Ray itself would wait for minutes."""
POLL_S = 0.5
AGENT_WAIT_S, AGENT_POLL_S = 60.0, 2.0
_NO_AGENT = "No available agent to submit job"
"""A dashboard's answer (ray 2.60), with status 500, until an agent has reported to it."""


def submit(job: Job, address: str, *, follow: bool, stream: TextIO) -> None:
    """Submits the job and, with `follow`, streams its log until it has succeeded.

    Raises InputError when no cluster answers at `address`, when it refuses access, and when another
    job for the same run has not ended; JobFailedError, with the job's exit code, when the job fails
    or is stopped; JobDetachedError when its log is no longer followed, by Ctrl-C or because the
    network broke: the job continues.
    """
    address = address.rstrip("/")
    with _client_errors(address):
        client = _connect(address)
        _refuse_second_driver(client, job, address)
        job_id = job.new_id()
        _write(stream, command_line(job, address, job_id) + "\n")
        runtime_env: dict[str, Any] = {"working_dir": job.folder} if job.folder else {}
        if job.excludes:
            runtime_env["excludes"] = job.excludes
        submit_job = partial(
            client.submit_job,
            entrypoint=job.entrypoint, submission_id=job_id, runtime_env=runtime_env,
        )  # fmt: skip
        _submit_when_ready(submit_job, address, stream)
    _write(stream, f"submitted {job_id}\n{_next_steps(address, job_id)}\n")
    if follow:
        _follow(client, address, job_id, stream)


def _refuse_second_driver(client: JobSubmissionClient, job: Job, address: str) -> None:
    for other in client.list_jobs():
        other_id = str(other.submission_id)
        if not other.status.is_terminal() and f"-{job.run_digest}-" in other_id:
            raise InputError(
                f"{job.run_uri}: job {other_id} is already running on it. Only one driver can work "
                "on a run: wait for that job, or stop it and submit again; the new job resumes "
                f"from the committed work\n{_next_steps(address, other_id)}"
            )


def _submit_when_ready(submit_job: Callable[[], Any], address: str, stream: TextIO) -> None:
    """Submits a job, and retries for `AGENT_WAIT_S` while the cluster cannot take jobs yet.

    On a head that has just started, the dashboard answers before the agent that starts jobs does.
    """
    end, has_waited = time.monotonic() + AGENT_WAIT_S, False
    while True:
        try:
            submit_job()
        except RuntimeError as error:
            if _NO_AGENT not in str(error) or time.monotonic() >= end:
                raise
            if not has_waited:
                _write(
                    stream,
                    f"{address}: the cluster cannot accept jobs yet (no job agent); retrying for "
                    f"up to {AGENT_WAIT_S:.0f} s\n",
                )
            has_waited = True
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
            f"no longer following {job_id}{why}; the job continues\n{_next_steps(address, job_id)}"
        ) from end
    if info.status == JobStatus.SUCCEEDED:
        return
    if info.status == JobStatus.STOPPED:
        raise JobFailedError(
            f"{job_id} was stopped; committed work is kept, and submitting it again resumes it"
        )
    if info.driver_exit_code is None:
        # The cluster could not start the driver, or lost it: there is no log.
        raise JobFailedError(f"{job_id} failed: {info.message}")
    raise JobFailedError(
        f"{job_id} failed with exit code {info.driver_exit_code}; the reason is in its log above",
        exit_code=info.driver_exit_code,
    )


async def _stream_log(client: JobSubmissionClient, job_id: str, stream: TextIO) -> None:
    async for text in client.tail_job_logs(job_id):
        _write(stream, text)


def _connect(address: str) -> JobSubmissionClient:
    if not address.startswith(("http://", "https://")):
        raise InputError(
            f"--address {address}: need the address of the dashboard, such as http://HEAD:8265"
        )
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=ANSWER_S).close()
    except urllib.error.HTTPError:
        pass  # An answer; Ray's client reports what is wrong with it.
    except (OSError, HTTPException) as error:
        why = getattr(error, "reason", error)
        raise InputError(
            f"{address}: no Ray dashboard answers ({why}). Start the cluster, or forward its port "
            "8265 to this machine (ray dashboard CLUSTER.yaml, kubectl port-forward)"
        ) from None
    with _address_in_environment(address):
        return JobSubmissionClient(address)


@contextmanager
def _address_in_environment(address: str) -> Iterator[None]:
    """Sets RAY_API_SERVER_ADDRESS for a while.

    Ray's client (ray 2.60) prefers this variable, and RAY_ADDRESS after it, to its own argument.
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
def _client_errors(address: str) -> Iterator[None]:
    """Raises what Ray's client raises as an InputError that names the remedy."""
    try:
        yield
    except AuthenticationError as error:
        why, *_ = re.split(r"\n|\. ", str(error))  # Paragraphs of advice follow.
        raise InputError(
            f"{address}: refuses access: {why}; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH to the cluster's token (ray get-auth-token on its head)"
        ) from None
    except (
        RuntimeError,
        ValueError,
        ConnectionError,
        RayError,
        requests.RequestException,
    ) as error:
        raise InputError(f"{address}: does not accept the job: {last_line(error)}") from error


def _next_steps(address: str, job_id: str) -> str:
    return (
        f"  follow: ray job logs --address {address} --follow {job_id}\n"
        f"  stop:   ray job stop --address {address} {job_id}"
    )


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()
