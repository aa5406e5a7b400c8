"""Ray Data's log of failed tasks: one line for a DfnRayError, everything for any other error."""

from __future__ import annotations

import logging

import pytest
from ray.exceptions import RayTaskError

from dfn_ray.errors import DfnRayError, StorageError
from dfn_ray.on_ray.failures import dfn_ray_error_in
from dfn_ray.on_ray.ray_logs import OUTCOMES, TASKS, shorten_task_errors

FULL = StorageError("s3://bucket/run: cannot write it: no space left")


def of_a_task(cause: Exception) -> BaseException:
    """The exception that Ray raises in the driver for an exception of a task."""
    return RayTaskError("MapBatches", "a traceback of the worker", cause).as_instanceof_cause()


@pytest.fixture
def said(caplog):
    shorten_task_errors(dfn_ray_error_in)
    for name in (TASKS, OUTCOMES):
        logging.getLogger(name).addHandler(caplog.handler)
    yield lambda: caplog.text
    for name in (TASKS, OUTCOMES):
        logging.getLogger(name).removeHandler(caplog.handler)


def test_a_task_that_is_passed_over_is_a_line(said):
    logging.getLogger(TASKS).error("Ignoring this exception", exc_info=of_a_task(FULL))
    assert "a task failed: s3://bucket/run: cannot write it: no space left" in said()
    assert "raceback" not in said()


def test_an_error_that_is_raised_as_well_is_not_logged(said):
    error = of_a_task(FULL)
    logging.getLogger(TASKS).error("Dataset execution will now abort.", exc_info=error)
    try:
        raise error
    except DfnRayError:
        logging.getLogger(OUTCOMES).error("Exception occurred in Ray Data")
        logging.getLogger(OUTCOMES).exception("Full stack trace:")
    assert said() == ""


def test_any_other_error_keeps_its_traceback(said):
    logging.getLogger(TASKS).error("Ignoring this exception", exc_info=of_a_task(KeyError("a")))
    assert "a traceback of the worker" in said()
    assert "KeyError" in said()
