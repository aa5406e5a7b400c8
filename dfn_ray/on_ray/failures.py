"""Errors that tasks and actors raised, without what Ray wraps around them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray.data import DataContext
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from dfn_ray.errors import DfnRayError, NoProgressError, message_without_advice


@contextmanager
def unwrapped_ray_errors() -> Iterator[None]:
    """A DfnRayError that a task raised comes out as itself, without Ray's wrapping and the worker's traceback.

    Ray Data's guard against standstill (`configure`) comes out as NoProgressError.
    """
    try:
        yield
    except ExecutionTimeoutError as error:
        waited_s = DataContext.get_current().execution_no_progress_timeout_s
        raise NoProgressError(
            f"nothing moved for {waited_s:,.0f} s; are there nodes for what the recipe asks? Run again to go on"
        ) from error
    except Exception as error:
        own = dfn_ray_error_in(error)
        if own is None:
            raise
        raise own from error


def dfn_ray_error_in(error: BaseException | None) -> DfnRayError | None:
    """The first DfnRayError in a chain of causes that is not one of Ray's copies."""
    while error is not None:
        if isinstance(error, DfnRayError) and not isinstance(error, RayError):
            error.args = (message_without_advice(error),)
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None
