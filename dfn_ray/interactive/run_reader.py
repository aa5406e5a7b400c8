"""A run on storage, for reading: its recipe, selection, scores and subset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dfn_ray import run as runs
from dfn_ray.errors import IncompleteRunError
from dfn_ray.interactive.run_table import RunTable
from dfn_ray.on_ray.footers import read_many_parts


@dataclass(frozen=True)
class RunReader:
    """A filtering run. Reading it changes nothing and is safe beside a driver that writes it."""

    run: runs.Run

    @property
    def uri(self) -> str:
        """Its `run_uri`."""
        return self.run.uri

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe that it was made by."""
        return self.run.recipe

    @property
    def selection(self) -> Mapping[str, Any]:
        """`selection.json`: rule, N, k, exact threshold, counts by status and reason.

        Raises IncompleteRunError as long as nothing is selected.
        """
        selection = self.run.read_json(runs.SELECTION)
        if selection is None:
            raise IncompleteRunError(
                f"{self.uri}: nothing is selected yet; run dfn-ray filter or dfn-ray select on its "
                "recipe"
            )
        return selection

    @property
    def scores(self) -> RunTable:
        """A row per sample of the pool: uid, shard, row, status, reason, size and scores.

        The score of a network is in `score_NAME`. For a run of `materialize --out`, these are the
        scores of the run that it was made from. Raises InputError for a run without scores.
        """
        scored = runs.require_scores(self.run)
        names = scored.part_names()
        ledger = runs.scan_ledger(scored.store, scored.fingerprint, names, read=read_many_parts)
        doubled = {runs.part_file(name): chunks for name, chunks in ledger.disowned.items()}
        return RunTable(scored, tuple(map(runs.part_file, names)), doubled)

    @property
    def subset(self) -> RunTable:
        """A row per kept sample: uid, image (the original bytes), text, metadata and scores.

        Raises IncompleteRunError as long as the subset is not finished.
        """
        if (state := self.selection["state"]) != runs.State.FINAL:
            raise IncompleteRunError(
                f"{self.uri}: its subset is not finished (state {state}); run dfn-ray materialize "
                "on its recipe"
            )
        return RunTable(
            self.run, tuple(f"{runs.SUBSET}/{name}" for name in self.run.subset_files())
        )


def open_reader(run_uri: str) -> RunReader:
    """Opens a filtering run for reading.

    Raises InputError if there is none at the URI, DamagedRunError if it cannot be read.
    """
    return RunReader(runs.open_run(run_uri))
