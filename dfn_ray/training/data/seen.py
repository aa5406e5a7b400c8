"""The samples that a run has seen, so that it resumes within a pass without repeating a sample.

A sample's place is (group, position in the group's order). Workers record the places they trained
on as spans; a checkpoint contains their union. After a restart, exactly the places in the union are
skipped, regardless of the number of workers and of how Ray Data splits the stream over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Seen:
    """The places seen so far."""

    groups: int = 0
    """All groups with a lower number are seen completely."""
    spans: Mapping[int, Spans] = field(default_factory=dict)
    """Spans by group, from that number on: disjoint [first, end), ascending."""

    def of_group(self, number: int) -> Spans | None:
        """Returns the spans of a group; None if all of it is seen."""
        return None if number < self.groups else self.spans.get(number, ())

    def with_spans(self, span_N3: np.ndarray, *, closed: int) -> Seen:
        """Returns a copy with more spans (group, first, end) and all groups below `closed`."""
        groups = max(self.groups, closed)
        spans = {number: list(known) for number, known in self.spans.items() if number >= groups}
        for number, first, end in span_N3.tolist():
            if number >= groups:
                spans.setdefault(number, []).append((first, end))
        return Seen(groups, {number: _union(known) for number, known in spans.items()})

    def to_json(self) -> dict[str, Any]:
        """Returns the places as JSON values."""
        return {"groups": self.groups, "spans": {str(k): v for k, v in sorted(self.spans.items())}}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Seen:
        """Returns the places in a value of `to_json`."""
        spans = {int(k): tuple((int(a), int(b)) for a, b in v) for k, v in value["spans"].items()}
        return Seen(value["groups"], spans)


def unseen(size: int, spans: Spans) -> np.ndarray:
    """Returns the places of a group that no span covers, bool (size,)."""
    left = np.ones(size, dtype=bool)
    for first, end in spans:
        left[first:end] = False
    return left


def merge_spans(span_N3: np.ndarray) -> np.ndarray:
    """Returns spans (group, first, end), sorted, with adjacent ones merged."""
    if not len(span_N3):
        return span_N3
    spans = span_N3[np.lexsort((span_N3[:, 1], span_N3[:, 0]))]
    begins = np.ones(len(spans), dtype=bool)
    begins[1:] = (spans[1:, 0] != spans[:-1, 0]) | (spans[1:, 1] != spans[:-1, 2])
    starts = np.flatnonzero(begins)
    merged = spans[starts].copy()
    merged[:, 2] = spans[np.append(starts[1:], len(spans)) - 1, 2]
    return merged


def _union(spans: Iterable[tuple[int, int]]) -> Spans:
    merged: list[tuple[int, int]] = []
    for first, end in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return tuple(merged)
