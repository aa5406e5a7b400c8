"""Names of the files and folders of a run."""

from __future__ import annotations

FORMAT_VERSION = 2
"""Of what a run holds and how it is read. Raise it when runs made before cannot be resumed by what comes after."""
READABLE_FORMATS = (1, FORMAT_VERSION)
"""What verify, select, export and compare read. Runs of format 1 were made by other readers, decoders and tokenizers, of
whose versions they say nothing, so they are never resumed."""

RUN, LISTING, ATTEMPTS, OLD_ATTEMPT = "run.json", "pool.parquet", "attempts", "attempt.json"
SCORES, SUBSET, BORDERLINE = "scores", "subset", "borderline"
BOUNDS, SELECTION, UID_LIST = "bounds", "selection.json", "subset_uids.npy"
SELECTIONS, SPENDING = "selections", "spending"
CHECKPOINTS, GENERATIONS, RESULT, MLFLOW = (
    "checkpoints",
    "generations",
    "result.json",
    "mlflow.json",
)
"""Of training runs; the last one is MLflow's identity of the run, by tracking server."""


def bounds_file(network: str) -> str:
    """The file with the bounds for the scores of a network."""
    return f"{BOUNDS}/{network}.json"


def part_file(name: str) -> str:
    """The file of a committed part."""
    return f"{SCORES}/{name}.parquet"
