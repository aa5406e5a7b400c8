"""The connection of this process to Ray, and the Ray Data settings that all chains share."""

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
from ray.data.context import (
    DEFAULT_ACTOR_POOL_UTIL_UPSCALING_THRESHOLD,
    DEFAULT_TARGET_MAX_BLOCK_SIZE,
)

from dfn_ray.errors import InputError, last_line
from dfn_ray.on_ray.failures import dfn_ray_error_in
from dfn_ray.on_ray.ray_address import check_ray_reachable
from dfn_ray.on_ray.ray_logs import shorten_task_errors
from dfn_ray.storage import shared_environment

ACTOR_DEATHS = 32
"""Actors in a row that may die before they have started. `actor_pools` gives up earlier and with a
better message, except for actors that die before their constructor, e.g. if a package is
missing."""
GUARD = "dfn_ray.on_ray.uninterruptible_imports.guard_workers"
"""Setup hook of worker processes. If another program called ray.init, importing dfn_ray calls
it."""
_STARTUP = "timed out during startup"
"""In Ray's message when its processes take longer than 30 s to start."""
NODE_ID = "ray.io/node-id"
"""Label that Ray sets on every node."""


def connect() -> None:
    """Connects this process to the cluster that the environment names, or starts a local Ray.

    The driver passes its storage settings, except secrets, on to workers
    (`dfn_ray.storage.environment`). Raises InputError when no cluster answers at that address, or a
    local Ray cannot start.
    """
    check_ray_reachable()
    if not ray.is_initialized():
        # Ray's core warns for every actor pool that its arguments are lost with the driver; so is
        # the run.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        # No dashboard: a local one is ten processes that nobody looks at; a cluster's head has its
        # own. The variables of a submitted job reach the workers anyway, and Ray rejects them if
        # they are set twice.
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
                f"no Ray cluster to connect to: {last_line(error)}; start it, set RAY_ADDRESS to "
                "another one, or unset it to start a local Ray"
            ) from error
        except Exception as error:
            if _STARTUP not in str(error):  # Ray raises a bare Exception
                raise
            raise InputError(
                f"Ray did not start: {last_line(error)}; the machine may be overloaded. Run the "
                "same command again"
            ) from error


@contextmanager
def _silenced_stderr() -> Iterator[None]:
    """Silences this process's stderr during `ray.init`.

    Ray's C++ core prints its log level there, whatever the level.
    """
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
    """Keeps this process's SIGTERM handler: Ray's prints a stack trace and exits with 15."""
    own = signal.getsignal(signal.SIGTERM)
    yield
    if callable(own) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, own)


def driver_node_selector() -> dict[str, str]:
    """The label selector of this node, for actors that must not be lost with another node."""
    return {NODE_ID: ray.get_runtime_context().get_node_id()}


def put_networks(networks: Sequence[Any]) -> ray.ObjectRef:
    """A reference to the networks in the object store: loaded once here, fetched once per node."""
    return ray.put(tuple(networks))


def configure(
    *, errored_blocks: int, no_progress_timeout_s: float, rows_at_once: bool = False
) -> DataContext:
    """Sets, for chains built from now on, the tasks that may fail and the time without progress.

    `rows_at_once`: a row leaves its task at once, in a block of its own, and an actor pool grows
    while all its actors are busy, without a queue at each of them.
    """
    context = DataContext.get_current()
    context.max_errored_blocks = errored_blocks
    context.execution_no_progress_timeout_s = no_progress_timeout_s
    context.raise_original_map_exception = True
    context.max_consecutive_actor_init_deaths = ACTOR_DEATHS
    # dfn_ray prints its own progress line: Ray Data's bars count blocks, not samples.
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1 if rows_at_once else DEFAULT_TARGET_MAX_BLOCK_SIZE
    context.autoscaling_config.actor_pool_util_upscaling_threshold = (
        1.0 if rows_at_once else DEFAULT_ACTOR_POOL_UTIL_UPSCALING_THRESHOLD
    )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    shorten_task_errors(dfn_ray_error_in)
    return context
