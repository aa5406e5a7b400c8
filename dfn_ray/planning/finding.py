"""What a check found."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

NAME_WIDTH = 14
"""Of the names of checks, so that the printout is two columns."""
LINE_WIDTH = 110


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: that something is ready, or what to change."""

    name: str
    text: str
    ok: bool = True

    def printed(self) -> str:
        """The finding as it is printed, long texts wrapped under themselves."""
        head = f"{'ok' if self.ok else 'CHANGE':<6}  {self.name:<{NAME_WIDTH}}  "
        return textwrap.fill(
            self.text,
            LINE_WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        )


def change(name: str, text: str) -> Finding:
    """A finding that something should change."""
    return Finding(name, text, ok=False)
