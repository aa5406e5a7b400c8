"""What a check found."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from dfn_ray.errors import DfnRayError, InputError, StorageError

NAME_WIDTH = 14
"""Of the names of checks, so that the printout is two columns."""
LINE_WIDTH = 110


class NotCheckedError(Exception):
    """Something could not be looked at, which says nothing about it."""


@dataclass(frozen=True)
class Finding:
    """One line of a dry run or of the doctor: that something is ready, or what to change."""

    name: str
    text: str
    ok: bool = True
    checked: bool = True
    """False where it could not be looked at."""
    error: DfnRayError | None = None
    """What a verb would end with, where that is known."""

    def printed(self) -> str:
        """The finding as it is printed, long texts wrapped under themselves."""
        head = self._head()
        return textwrap.fill(
            self.text,
            LINE_WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        )

    def line(self) -> str:
        """The finding as one line, for those who search the output."""
        return self._head() + self.text

    def _head(self) -> str:
        mark = "CHANGE" if not self.ok else "ok" if self.checked else "skip"
        return f"{mark:<6}  {self.name:<{NAME_WIDTH}}  "


def change(name: str, text: str) -> Finding:
    """A finding that something should change."""
    return Finding(name, text, ok=False)


def found(name: str, look: Callable[[], str]) -> Finding:
    """What a look at something says: its answer, the mistake or the fault of a store that it raises, or why it was not done."""
    try:
        return Finding(name, look())
    except NotCheckedError as error:
        return Finding(name, f"not checked: {error}", checked=False)
    except (InputError, StorageError) as error:
        return Finding(name, str(error), ok=False, error=error)
