"""The connection of this process to Ray, and the settings of Ray Data that every chain is made with."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.data import DataContext

from dfn_ray.errors import InputError, last_line
from dfn_ray.on_ray.failures import dfn_ray_error_in
from dfn_ray.on_ray.ray_address import check_ray_reachable
from dfn_ray.on_ray.ray_logs import shorten_task_errors
from dfn_ray.storage import shared_environment

ACTOR_DEATHS = 32
"""Actors in a row that may die before they have started. `flow.pools` judges earlier and says more, but for actors
that do not get as far as that: on nodes that lack a package, say."""
GUARD = "dfn_ray.on_ray.uninterruptible_imports.guard_workers"
"""What a worker process calls first. Where someone else called ray.init, the first import of dfn_ray does."""
NODE_ID = "ray.io/node-id"
"""The label that Ray gives to every node."""


def connect() -> None:
    """Connect this process to the cluster that the environment names, else start a local Ray.

    Workers get the driver's settings of storage that are no secrets (`dfn_ray.storage.environment`). Raises InputError
    when no cluster answers there, or a local Ray cannot start.
    """
    check_ray_reachable()
    if not ray.is_initialized():
        # Ray's core reports on every actor pool that its arguments die with the driver. So does the run.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        # A local Ray's dashboard is ten processes that nobody looks at; a cluster's head has its own.
        # A submitted job's variables reach the workers as they are, and Ray refuses to be told them again.
        shared = {} if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else shared_environment()
        try:
            with _silenced_stderr(), _own_sigterm():
                ray.init(
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    include_dashboard=False,
                    runtime_env={"env_vars": shared, "worker_process_setup_hook": GUARD},
                )
        except (ConnectionError, TimeoutError) as error:
            raise InputError(
                f"no Ray cluster to connect to: {last_line(error)}; start it, set RAY_ADDRESS to another, or unset "
                "it for a local Ray"
            ) from error


@contextmanager
def _silenced_stderr() -> Iterator[None]:
    """Nothing on the process's own stderr: there Ray's core says which log level it was given, at any level."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """The process's own answer to SIGTERM stays: Ray's core prints a stack and Ray exits with 15."""
    own = signal.getsignal(signal.SIGTERM)
    yield
    if callable(own) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, own)


def driver_node_selector() -> dict[str, str]:
    """The label selector of the node that this runs on: for actors that must not go with another node."""
    return {NODE_ID: ray.get_runtime_context().get_node_id()}


def put_networks(networks: Sequence[Any]) -> ray.ObjectRef:
    """The networks in the object store: loaded once here, fetched once by each node."""
    return ray.put(tuple(networks))


def configure(*, errored_blocks: int, no_progress_timeout_s: float) -> DataContext:
    """Settings of the chains made from here on: how many tasks may be given up, and how long nothing may move."""
    context = DataContext.get_current()
    context.max_errored_blocks = errored_blocks
    context.execution_no_progress_timeout_s = no_progress_timeout_s
    context.raise_original_map_exception = True
    context.max_consecutive_actor_init_deaths = ACTOR_DEATHS
    # Progress is dfn_ray's own line: Ray Data's bars count blocks, not samples.
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    shorten_task_errors(dfn_ray_error_in)
    return context
