"""Work at the pace of large networks, for tests that need long runs, with notes of where and when.

Results are those of the normal code. Notes go to the file named by NOTES in the workers'
environment: `ray.init(runtime_env={"env_vars": {NOTES: path}})`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import ray

from dfn_ray.filtering.scoring.score_and_commit import ScoreAndCommit
from dfn_ray.images.isolation import FORKED, Workspace
from dfn_ray.on_ray.cells import Cell
from dfn_ray.preparing.prepare import Preparation, prepare

NOTES = "DFN_RAY_WORK_NOTES"


@dataclass(frozen=True)
class Note:
    """The start of a chunk."""

    at_s: float
    """Seconds since the epoch."""
    stage: str
    node: str
    """Ray's id of the node."""


class SlowScorer(ScoreAndCommit):
    """Scores like its parent, but sleeps for every chunk."""

    seconds = 0.7
    """Minimum per chunk."""

    def _scored(self, cell: Cell) -> Cell:
        note("score")
        time.sleep(self.seconds)
        return super()._scored(cell)


def noted_prepare(
    cell: Cell,
    *,
    preparation: Preparation,
    seconds: float = 0.0,
    workspace: Workspace = FORKED,
) -> Cell:
    """Decodes like `prepare`, in a task, but sleeps for `seconds` per chunk."""
    note("decode")
    time.sleep(seconds)
    return prepare(cell, preparation=preparation, workspace=workspace)


def read_notes(path: Path) -> list[Note]:
    """All notes so far."""
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [Note(float(at_s), stage, node) for at_s, stage, node in lines]


def note(stage: str) -> None:
    """Notes, if NOTES is set, that a stage begins a chunk here and now."""
    path = os.environ.get(NOTES)
    if path is not None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{time.time()} {stage} {ray.get_runtime_context().get_node_id()}\n")
