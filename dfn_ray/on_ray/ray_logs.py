"""One-line logs of failed tasks whose error is a DfnRayError.

The message of a DfnRayError contains what is wrong and where; Ray's traceback of worker and driver,
60 to 100 lines per task, hides it. Errors of any other kind keep their traceback.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from dfn_ray.errors import DfnRayError, last_line

TASKS = "ray.data._internal.execution.streaming_executor_state"
"""Logger of each failed task, skipped or ending the execution."""
OUTCOMES = "ray.data.exceptions"
"""Logger of the error that ends an execution, which is raised as well."""


def shorten_task_errors(own_error: Callable[[BaseException | None], DfnRayError | None]) -> None:
    """Makes Ray Data log each DfnRayError in one line.

    `own_error` finds it in a chain of causes.
    """
    for name in (TASKS, OUTCOMES):
        logger = logging.getLogger(name)
        if not any(isinstance(found, _TaskErrorFilter) for found in logger.filters):
            logger.addFilter(_TaskErrorFilter(own_error))


class _TaskErrorFilter(logging.Filter):
    def __init__(self, own_error: Callable[[BaseException | None], DfnRayError | None]) -> None:
        super().__init__()
        self._own_error = own_error

    def filter(self, record: logging.LogRecord) -> bool:
        """False for errors that are raised as well, else True; a DfnRayError is shortened."""
        own = self._own_error((record.exc_info or sys.exc_info())[1])
        if own is None:
            return True
        if record.name == OUTCOMES or "will now abort" in record.getMessage():
            return False
        record.msg, record.args = f"a task failed: {last_line(own)}", ()
        record.exc_info = record.exc_text = None
        return True
