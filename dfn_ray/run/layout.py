"""Names of the files and folders of a run."""

from __future__ import annotations

from collections.abc import Mapping

FORMAT_VERSION = 2
"""Of what a run holds and how it is read. Raise it when runs made before cannot be resumed by what comes after."""
READABLE_FORMATS = (1, FORMAT_VERSION)
"""What verify, select, export and compare read. Runs of format 1 were made by other readers, decoders and tokenizers, of
whose versions they say nothing, so they are never resumed."""

RUN, LISTING, ATTEMPTS, OLD_ATTEMPT = "run.json", "pool.parquet", "attempts", "attempt.json"
SCORES, SUBSET, BORDERLINE = "scores", "subset", "borderline"
BOUNDS, SELECTION, UID_LIST, SPENDING = (
    "bounds",
    "selection.json",
    "subset_uids.npy",
    "spending",
)

NEEDED: Mapping[str, Mapping[str, type]] = {
    RUN: {"kind": str, "recipe": dict, "fingerprint": dict, "fingerprint_digest": str, "pool": dict},
    SELECTION: {"state": str, "k": int},
    f"{BOUNDS}/": {"lo": str, "hi": str},
    f"{ATTEMPTS}/": {"token": str},
}  # fmt: skip
"""What must be in JSON files, by their name or `FOLDER/`: without it they are damaged."""


def needed_of(name: str) -> Mapping[str, type]:
    """What must be in a JSON file of a run."""
    folder, _, last = name.rpartition("/")
    return NEEDED.get(last) or NEEDED.get(f"{folder}/") or {}


def bounds_file(network: str) -> str:
    """The file with the bounds for the scores of a network."""
    return f"{BOUNDS}/{network}.json"


def part_file(name: str) -> str:
    """The file of a committed part."""
    return f"{SCORES}/{name}.parquet"
