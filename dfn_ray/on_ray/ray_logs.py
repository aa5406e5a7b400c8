"""What Ray Data logs of tasks that failed, in a line each where the error is one of ours.

An error of ours says what is wrong and where; Ray's traceback of worker and driver, 60 to 100 lines for each task, hides
it. Errors of any other kind keep theirs.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from dfn_ray.errors import DfnRayError, last_line

TASKS = "ray.data._internal.execution.streaming_executor_state"
"""Logs each task that failed: one that is passed over, or the one that ends the execution."""
OUTCOMES = "ray.data.exceptions"
"""Logs the error that an execution ends with, which is raised as well."""


def shorten_task_errors(own_error: Callable[[BaseException | None], DfnRayError | None]) -> None:
    """Make Ray Data say errors of ours in a line; `own_error` finds the one that an error goes back to."""
    for name in (TASKS, OUTCOMES):
        logger = logging.getLogger(name)
        if not any(isinstance(found, _TaskErrorFilter) for found in logger.filters):
            logger.addFilter(_TaskErrorFilter(own_error))


class _TaskErrorFilter(logging.Filter):
    def __init__(self, own_error: Callable[[BaseException | None], DfnRayError | None]) -> None:
        super().__init__()
        self._own_error = own_error

    def filter(self, record: logging.LogRecord) -> bool:
        """False for what is raised as well, True for all else, shortened if it is an error of ours."""
        own = self._own_error((record.exc_info or sys.exc_info())[1])
        if own is None:
            return True
        if record.name == OUTCOMES or "will now abort" in record.getMessage():
            return False
        record.msg, record.args = f"a task failed: {last_line(own)}", ()
        record.exc_info = record.exc_text = None
        return True
