"""Names of the files and folders of a run."""

from __future__ import annotations

FORMAT_VERSION = 2
"""Version of the run format. Increment it when existing runs cannot be resumed by the new code."""
READABLE_FORMATS = (1, FORMAT_VERSION)
"""Formats that verify, select, export and compare read. Runs of format 1 were made by other
readers, decoders and tokenizers, whose versions they do not record, so they are never resumed."""

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
"""Names in training runs; the last one stores MLflow's ID of the run, by tracking server."""


def bounds_file(network: str) -> str:
    """The file with the bounds for the scores of a network."""
    return f"{BOUNDS}/{network}.json"


def part_file(name: str) -> str:
    """The file of a committed part."""
    return f"{SCORES}/{name}.parquet"
