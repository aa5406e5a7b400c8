"""The one tree of errors that dfn_ray raises on purpose.

    DfnRayError                 everything below; exit code 1
    ├── InputError              the recipe, the pool or the arguments are wrong; exit code 2
    │   ├── RecipeError         a recipe does not validate; lists every mistake
    │   └── FingerprintError    a run on storage was made by a recipe that scores differently
    ├── StorageError            a store or a disk still fails after all retries; exit code 1
    │   ├── MissingFileError    the store answered that nothing is at a URI; exit code 2
    │   └── StorageAccessError  rights, credentials, bucket or settings are wrong; exit code 2
    ├── ShardChangedError       a shard is not the one that was listed; nothing of it was committed
    ├── RunTakenOverError            another driver resumed this run; this one must stop
    ├── ErrorBudgetExceededError     more samples or shards failed than the recipe allows
    ├── BudgetSpentError             the money or the hours of a run are spent; more of them, and it goes on
    ├── NotReadyError                dfn-ray doctor found something to change
    ├── IncompleteRunError           chunks are missing where the step needs all of them
    ├── NoProgressError              nothing moves any more: nodes are missing, or work is lost
    ├── ScorersFailedError           actors that run networks cannot start anywhere
    ├── TrainingFailedError          workers keep dying, or the loss is not a number
    ├── JobFailedError               a job on a cluster failed or was stopped; exit code is the job's
    ├── JobOutOfSightError           a job on a cluster is no longer followed; it goes on
    └── VerificationError       a promise does not hold on storage
        └── DamagedRunError     a file of a run is absent, damaged or altered

A message says what is wrong, what was got, where, and what to do.
"""

from __future__ import annotations


class DfnRayError(Exception):
    """Root of all errors that dfn_ray raises on purpose."""

    exit_code = 1


class InputError(DfnRayError):
    """What the user handed over is wrong; nothing was started."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe does not validate; `problems` lists every mistake by dotted name."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("the recipe is wrong:\n" + "\n".join(f"  {line}" for line in problems))


class StorageError(DfnRayError):
    """A store or a disk fails, and still does after all retries. Says nothing about the content of a file."""


class MissingFileError(StorageError):
    """The store answered that nothing is at a URI (404, 410, ENOENT); never a guess from another failure."""

    exit_code = 2


class StorageAccessError(StorageError):
    """A store refuses, or cannot be asked, for a reason that the user can change: rights, credentials, bucket,
    endpoint, an absent package."""

    exit_code = 2


class ShardChangedError(DfnRayError):
    """A shard differs from what was listed, in size or in the store's version of it; nothing read from it is committed."""


class FingerprintError(InputError):
    """The run on storage was made by a recipe that gives other scores."""


class RunTakenOverError(DfnRayError):
    """Another driver resumed this run after this one; this one stops and commits nothing more."""


class ErrorBudgetExceededError(DfnRayError):
    """More samples or shards failed than the recipe allows: the pool is bad, not a sample."""


class BudgetSpentError(DfnRayError):
    """The run has cost what it may cost; what is committed stays, a larger budget goes on from there."""


class NotReadyError(DfnRayError):
    """Something about the recipe or its cluster should change before money is spent."""


class IncompleteRunError(DfnRayError):
    """Chunks of the pool are not committed yet, but the step needs all of them."""


class NoProgressError(DfnRayError):
    """Nothing has moved for as long as the recipe allows: nodes are missing, or Ray has lost track of its work."""


class ScorersFailedError(DfnRayError):
    """The actors that run networks cannot start: on no node, or not on the one that this comes from."""


class TrainingFailedError(DfnRayError):
    """Training cannot go on: its workers die without getting any further, or the loss is not a number."""


class JobFailedError(DfnRayError):
    """A submitted job failed or was stopped; the exit code is the job's own where it has one."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class JobDetachedError(DfnRayError):
    """A submitted job is no longer followed, by wish or because the network broke; the job itself goes on."""


class VerificationError(DfnRayError):
    """A promise does not hold on storage; the message names the first breach."""


class DamagedRunError(VerificationError):
    """A file of a run is absent, cannot be read, or is not what was written; the message names it."""


def message_without_advice(error: BaseException) -> str:
    """The message of an error without the advice on retries that Ray Data appends to what a task raises."""
    return str(error).partition("\nFailed to apply UDF transform")[0]


def last_line(error: BaseException) -> str:
    """The line of an error that says what it is: the last one, below whatever traceback Ray put before it."""
    lines = message_without_advice(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def shortened(text: str, length: int = 80) -> str:
    """A value for a message, cut to `length` characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
