"""The result of a check, as the doctor and dry runs print it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from dfn_ray.errors import DfnRayError, InputError, StorageError

NAME_WIDTH = 14
"""Column width of check names: the printout has two columns."""
LINE_WIDTH = 110


class NotCheckedError(Exception):
    """A check could not be made, so nothing is known about its subject."""


@dataclass(frozen=True)
class Finding:
    """One line of a dry run or of the doctor: something is ready, or has to change."""

    name: str
    text: str
    ok: bool = True
    checked: bool = True
    """False if the check could not be made."""
    error: DfnRayError | None = None
    """The error that the verb would raise, if known."""

    def printed(self) -> str:
        """The finding as printed, long text wrapped with a hanging indent."""
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
        """The finding as one line, for grep."""
        return self._head() + self.text

    def _head(self) -> str:
        mark = "CHANGE" if not self.ok else "ok" if self.checked else "skip"
        return f"{mark:<6}  {self.name:<{NAME_WIDTH}}  "


def change(name: str, text: str) -> Finding:
    """A finding that something should change."""
    return Finding(name, text, ok=False)


def run_check(name: str, check: Callable[[], str]) -> Finding:
    """Runs a check and returns its finding.

    The text is the check's own, that of the InputError or StorageError it raises, or the reason
    why it could not be made (NotCheckedError).
    """
    try:
        return Finding(name, check())
    except NotCheckedError as error:
        return Finding(name, f"not checked: {error}", checked=False)
    except (InputError, StorageError) as error:
        return Finding(name, str(error), ok=False, error=error)
