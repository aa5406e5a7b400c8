"""The closed lists of a run: its kinds, and the states of its selection."""

from __future__ import annotations

from enum import StrEnum


class RunKind(StrEnum):
    """`kind` of a run, in its `run.json`."""

    FILTER = "filter"  # scores its pool, selects from it and may contain the subset
    MATERIALIZED = "materialized"  # a subset made from the scores of a run of kind filter
    LISTED = "listed"  # the subset that a uid list names
    TRAIN = "train"  # trains a network


class State(StrEnum):
    """`state` of a selection: selected only, subset being made, or subset complete."""

    SELECTED = "selected"
    SETTLING = "settling"
    FINAL = "final"
