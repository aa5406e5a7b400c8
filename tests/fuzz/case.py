"""An input with its check, and the error for a broken promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple


class PromiseError(Exception):
    """A promise that does not hold for an input."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input: its files, and the check of reading them."""

    valid: bool
    """Nothing in it is damaged."""
    note: str
    """Description for people."""
    files: Mapping[str, bytes]
    """Content by name; written to a folder of its own if the check fails."""
    check: Callable[[Path], Counter[str]]
    """Reads the input, in an empty folder of its own, and counts the outcomes. Raises
    PromiseError."""


class Target(NamedTuple):
    """A kind of input."""

    name: str
    share: int
    """Inputs of this kind in each round over all kinds."""
    make: Callable[[Random], Case]


def rng_of(seed: int, index: int) -> Random:
    """The source of all randomness of the input `index`."""
    return Random(f"{seed}/{index}")


def require(holds: object, promise: str, *details: object) -> None:
    """Raises PromiseError unless `holds`.

    `promise` names the kind of failure, `details` the instance.
    """
    if not holds:
        raise PromiseError(": ".join([promise, *(repr(detail)[:400] for detail in details)]))
