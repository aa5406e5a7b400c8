"""Selection from the stored scores of a run, by a rule, with the counts that it is based on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dfn_ray.config import Select, count_of_fraction
from dfn_ray.filtering.selecting.denominator import denominator
from dfn_ray.filtering.selecting.exact_k import Selection, select_best_each, select_threshold
from dfn_ray.filtering.selecting.run_scores import RunScores
from dfn_ray.on_ray.footers import read_many_parts
from dfn_ray.run import Ledger, Run, canonical_ledger, newest_first, scan_ledger
from dfn_ray.uids.records import UID_DTYPE, uid_strings


@dataclass(frozen=True, kw_only=True)
class SelectionResult:
    """A selection with its rule and counts, the content of `selection.json`."""

    select: Select
    network: str
    counts: Mapping[str, int]
    """All samples of the pool by `status` or `status/reason`."""
    notes: Mapping[str, int]
    """Samples handled in an unusual way, by `Note`."""
    faults: Mapping[str, tuple[str, str]]
    """Fault and detail of each bad shard."""
    shards: int
    n: int | None
    """N of keep_fraction; None for the other rules."""
    requested: int | None
    """Samples that the rule requests; k is smaller when fewer were scored. None for a threshold."""
    selection: Selection

    def to_json(self, run: Run) -> dict[str, Any]:
        """The selection as JSON, with the last tie also as uid, shard and row."""
        last = self.selection.last_tie
        return {
            "select": asdict(self.select),
            "network": self.network,
            "N": self.n,
            "requested": self.requested,
            "k": self.selection.k,
            "threshold": self.selection.threshold,
            "threshold_key": self.selection.threshold_key,
            "above": self.selection.above,
            "at": self.selection.at,
            "tie_rule": "uid, then shard, then row, ascending; the last one kept is last_tie",
            "last_tie": last and _tie_name(run, last),
            "last_tie_words": last,
            "samples": sum(self.counts.values()),
            "counts": dict(sorted(self.counts.items())),
            "notes": dict(sorted(self.notes.items())),
            "shards": self.shards,
            "faults": {shard: list(fault) for shard, fault in sorted(self.faults.items())},
            "fingerprint": run.fingerprint,
        }


def select_run(
    run: Run, select: Select, network: str, ledger: Ledger | None = None
) -> tuple[SelectionResult, RunScores]:
    """The exact selection over all scores of a complete run, or over the parts of a current ledger.

    Raises IncompleteRunError when shards are missing.
    """
    (selected,), scores = select_rules(run, [select], network, ledger)
    return selected, scores


def select_rules(
    run: Run, selects: Sequence[Select], network: str, ledger: Ledger | None = None
) -> tuple[list[SelectionResult], RunScores]:
    """`select_run` for several rules: all fractions and counts together take the passes of one."""
    if ledger is None:
        ledger = scan_ledger(run.store, run.fingerprint, run.part_names(), read=read_many_parts)
    else:
        ledger = canonical_ledger(run.store, run.fingerprint, ledger, read=read_many_parts)
    listing = run.listing()["uri"].to_pylist()
    ledger.require_complete(listing)
    scores = RunScores(run, network, tuple(newest_first(ledger.names)), dict(ledger.disowned))
    found = [
        SelectionResult(
            select=select,
            network=network,
            counts={key: count for key, count in ledger.counts.items() if count},
            notes=dict(ledger.notes),
            faults={
                shard: (fault.value, detail) for shard, (fault, detail) in ledger.faults.items()
            },
            shards=len(listing),
            n=denominator(ledger.counts, select) if select.keep_fraction is not None else None,
            requested=requested,
            selection=selection,
        )
        for select, requested, selection in _selections(scores, selects, ledger)
    ]
    return found, scores


def _selections(
    scores: RunScores, selects: Sequence[Select], ledger: Ledger
) -> Iterator[tuple[Select, int | None, Selection]]:
    """Each rule with its target count and selection. Each threshold takes a separate pass."""
    requested = [
        None
        if select.threshold is not None
        else target_count(select, denominator(ledger.counts, select))
        for select in selects
    ]
    counts = [k for k in requested if k is not None]
    best = iter(select_best_each(scores, counts, scores.map_slices) if counts else ())
    for select, k in zip(selects, requested, strict=True):
        if select.threshold is not None:
            yield select, None, select_threshold(scores, select.threshold, scores.map_slices)
        else:
            yield select, k, next(best)


def target_count(select: Select, n: int) -> int:
    """Samples that a fraction or count requests: floor(f * N), with f in its decimal notation."""
    if select.keep_count is not None:
        return select.keep_count
    assert select.keep_fraction is not None
    return count_of_fraction(select.keep_fraction, n)


def stored_selection(value: Mapping[str, Any]) -> Selection:
    """The selection stored by `SelectionResult.to_json`."""
    last = value["last_tie_words"]
    return Selection(
        k=value["k"],
        threshold_key=value["threshold_key"],
        last_tie=None if last is None else (last[0], last[1], last[2], last[3]),
        above=value["above"],
        at=value["at"],
    )


def _tie_name(run: Run, last: tuple[int, int, int, int]) -> dict[str, Any]:
    uid = uid_strings(np.array([last[:2]], dtype=UID_DTYPE))[0].as_py()
    return {"uid": uid, "shard": run.listing()["uri"][last[2]].as_py(), "row": last[3]}
