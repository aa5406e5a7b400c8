from __future__ import annotations

import importlib
import pickle
import pkgutil

import dfn_ray
from dfn_ray.errors import JobFailedError, RecipeError, StorageError, last_line
from dfn_ray.storage.causes import AbsentFileError, RefusalError, Verdict
from dfn_ray.storage.retries import RetriesSpentError

NEVER_SENT = {
    "BatchTooLargeError",
    "BrokenRulesError",
    "PageTooLargeError",
    "ShardDamageError",
    "UndecodableImageError",
    "UnreadableImageError",
}
"""Raised and caught within one function's calls: they become faults, reasons or a RecipeError."""
MADE: dict[type[BaseException], BaseException] = {
    RecipeError: RecipeError(["select.of: need x, got y", "pool.uri: missing"]),
    JobFailedError: JobFailedError("the job failed", exit_code=3),
    RefusalError: RefusalError("refused", Verdict.DENIED, retry_after_s=2.0),
    AbsentFileError: AbsentFileError("https://host/a.tar", 410),
    RetriesSpentError: RetriesSpentError(10, OSError("no route")),
}
"""Errors whose classes take other arguments than a message."""


def sent_classes() -> list[type[BaseException]]:
    """Every exception class of the package that may leave a task."""
    found: set[type[BaseException]] = set()
    for module in pkgutil.walk_packages(dfn_ray.__path__, "dfn_ray."):
        if module.name.startswith(("dfn_ray.testing", "dfn_ray.cli.__main__")):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            is_error = isinstance(value, type) and issubclass(value, BaseException)
            if is_error and value.__module__ == module.name:
                found.add(value)
    return [kind for kind in found if kind.__name__ not in NEVER_SENT]


def test_every_error_that_a_task_may_raise_reaches_the_driver_as_it_is():
    kinds = sent_classes()
    assert {*MADE, StorageError} <= set(kinds)
    for kind in kinds:
        error = MADE.get(kind) or kind("what happened: here. Fix it")
        error.__dict__["added"] = "later"
        received = pickle.loads(pickle.dumps(error))
        assert type(received) is kind
        assert str(received) == str(error)
        assert (received.args, vars(received)) == (error.args, vars(error))
        again = pickle.loads(pickle.dumps(received))
        assert (str(again), vars(again)) == (str(error), vars(error))


def test_the_mistakes_of_a_recipe_that_is_made_in_a_task_are_lines_of_their_own():
    received = pickle.loads(pickle.dumps(MADE[RecipeError]))
    assert received.problems == ["select.of: need x, got y", "pool.uri: missing"]
    assert str(received).count("\n") == 2


def test_the_telling_line_is_what_was_raised_and_not_the_advice_after_it():
    error = RuntimeError(
        "Traceback\n  in a worker\nOSError: no such shard\nFailed to apply UDF transform after 1/1 "
        "attempts (total backoff 0.0s).\nTo change retry attempts, configure it."
    )
    assert last_line(error) == "OSError: no such shard"
    assert last_line(RuntimeError()) == "RuntimeError"
