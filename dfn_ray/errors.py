"""The error tree of dfn_ray: every exception that it raises on purpose.

    DfnRayError                   everything below; exit code 1
    ├── InputError                the recipe, the pool or the arguments are wrong; exit code 2
    │   ├── RecipeError           a recipe does not validate; lists every mistake
    │   └── FingerprintError      a stored run was made by a recipe that scores differently
    ├── StorageError              a store or a disk still fails after all retries; exit code 1
    │   ├── MissingFileError      the store reports that nothing exists at a URI; exit code 2
    │   └── StorageAccessError    wrong permissions, credentials, bucket or settings; exit code 2
    ├── ShardChangedError         a shard differs from its listing; nothing of it was committed
    ├── RunTakenOverError         another driver resumed this run; this one must stop
    ├── ErrorLimitExceededError   more samples or shards failed than the recipe allows
    ├── BudgetSpentError          the run reached its limit of cost or hours; raise it to resume
    ├── NotReadyError             dfn-ray doctor found something that must be fixed
    ├── IncompleteRunError        the step needs all chunks, but some are not committed
    ├── NoProgressError           nothing makes progress: nodes are missing, or work is lost
    ├── ScorersFailedError        no actor that runs networks can start
    ├── WorkersFailedError        the processes that read and decode cannot be started on a node
    ├── TrainingFailedError       workers keep dying, or the loss is not a number
    ├── JobFailedError            a cluster job failed or was stopped; exits with the job's code
    ├── JobDetachedError          a cluster job is no longer followed; it keeps running
    └── VerificationError         a promise does not hold on storage
        └── DamagedRunError       a file of a run is absent, damaged or altered

A message states what happened, the value, where, and what fixes it.
"""

from __future__ import annotations

from typing import Any


class SentWhole:
    """Mixin for exceptions that tasks send to the driver: pickling keeps message and attributes.

    By default pickle calls the class with the message, which not every class takes.
    """

    args: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        """The class, the message and the attributes."""
        return _received, (type(self), self.args, dict(self.__dict__))


def _received(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class DfnRayError(SentWhole, Exception):
    """Root of all errors that dfn_ray raises on purpose."""

    exit_code = 1


class InputError(DfnRayError):
    """An input from the user is invalid; nothing was started."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe does not validate; `problems` lists every mistake by dotted name."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("the recipe is invalid:\n" + "\n".join(f"  {line}" for line in problems))


class StorageError(DfnRayError):
    """A store or a disk still fails after all retries.

    Implies nothing about the content of a file.
    """


class MissingFileError(StorageError):
    """The store reported that nothing exists at a URI (404, 410, ENOENT).

    Never inferred from any other failure.
    """

    exit_code = 2


class StorageAccessError(StorageError):
    """A store refuses or cannot be reached for a reason that the user can fix.

    Permissions, credentials, bucket, endpoint, or a package that is not installed.
    """

    exit_code = 2


class ShardChangedError(DfnRayError):
    """A shard differs from its listing, in size or in the store's version of it.

    Nothing read from it is committed.
    """


class FingerprintError(InputError):
    """The stored run was made by a recipe that yields other scores."""


class RunTakenOverError(DfnRayError):
    """Another driver resumed this run later; this one stops and commits nothing more."""


class ErrorLimitExceededError(DfnRayError):
    """More samples or shards failed than the recipe allows: the pool is at fault, not a sample."""


class BudgetSpentError(DfnRayError):
    """The run reached its limit of cost or time.

    Committed work stays; with a larger budget the run resumes from there.
    """


class NotReadyError(DfnRayError):
    """Something about the recipe or its cluster should be fixed before money is spent."""


class IncompleteRunError(DfnRayError):
    """Some chunks of the pool are not committed yet, but the step needs all of them."""


class NoProgressError(DfnRayError):
    """No progress for as long as the recipe allows.

    Nodes are missing, or Ray lost track of its work.
    """


class ScorersFailedError(DfnRayError):
    """The actors that run networks cannot start: on any node, or on the one that raised this."""


class WorkersFailedError(DfnRayError):
    """The processes that read and decode cannot be started on a node."""


class TrainingFailedError(DfnRayError):
    """Training cannot continue: its workers die without progress, or the loss is not a number."""


class JobFailedError(DfnRayError):
    """A submitted job failed or was stopped; the exit code is the job's own if it has one."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class JobDetachedError(DfnRayError):
    """A submitted job is no longer followed, on request or after a network failure.

    The job keeps running.
    """


class VerificationError(DfnRayError):
    """A promise does not hold on storage; the message names the first violation."""


class DamagedRunError(VerificationError):
    """A file of a run is absent, unreadable, or not what was written; the message names it."""


def message_without_advice(error: BaseException) -> str:
    """The message of an error without the advice on retries that Ray Data appends."""
    return str(error).partition("\nFailed to apply UDF transform")[0]


def last_line(error: BaseException) -> str:
    """The last line of an error, which names its cause below any traceback that Ray prepends."""
    lines = message_without_advice(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def shortened(text: str, length: int = 80) -> str:
    """A value for a message, cut to `length` characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
