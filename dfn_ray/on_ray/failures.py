"""Errors that tasks and actors raised, unwrapped from Ray's exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray.data import DataContext
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from dfn_ray.errors import DfnRayError, NoProgressError, message_without_advice


@contextmanager
def unwrapped_ray_errors() -> Iterator[None]:
    """Re-raises a task's DfnRayError as itself, without Ray's wrapper and the worker's traceback.

    The timeout of Ray Data for executions without progress (see `configure`) is raised as
    NoProgressError.
    """
    try:
        yield
    except ExecutionTimeoutError as error:
        waited_s = DataContext.get_current().execution_no_progress_timeout_s
        raise NoProgressError(
            f"no progress for {waited_s:,.0f} s. Check with `dfn-ray doctor` that the cluster has, "
            "or can add, nodes for what the recipe reserves, then run the same command again to "
            "resume"
        ) from error
    except Exception as error:
        own = dfn_ray_error_in(error)
        if own is None:
            raise
        raise own from error


def dfn_ray_error_in(error: BaseException | None) -> DfnRayError | None:
    """The first DfnRayError in a chain of causes that is not a copy by Ray; None without one."""
    while error is not None:
        if isinstance(error, DfnRayError) and not isinstance(error, RayError):
            error.args = (message_without_advice(error),)
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None
