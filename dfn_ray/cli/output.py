"""The output of verbs: text for people, or with --json one document for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, TextIO

from dfn_ray.console.printable import printable, printable_line

if TYPE_CHECKING:
    from dfn_ray.dry_run.finding import Finding


class Output:
    """The printout of one verb.

    Text goes to stdout. With `as_json` it goes to stderr, and stdout gets one JSON document.
    """

    def __init__(self, stdout: TextIO | None = None, *, as_json: bool = False) -> None:
        self._stdout = stdout if stdout is not None else sys.stdout
        self._as_json = as_json
        self.findings: list[Finding] = []
        """All that were reported."""

    def say(self, text: str) -> None:
        """Prints text."""
        stream = sys.stderr if self._as_json else self._stdout
        stream.write(f"{printable(text)}\n")

    def report(self, finding: Finding) -> None:
        """Prints a finding, wrapped."""
        self.findings.append(finding)
        self.say(finding.printed())

    def report_line(self, finding: Finding) -> None:
        """Prints a finding on one line."""
        self.findings.append(finding)
        self.say(printable_line(finding.line()))

    def finish(self, document: Mapping[str, Any], text: str | None = None) -> None:
        """Prints the result: the document with --json, else the text, if there is any."""
        if self._as_json:
            self._stdout.write(f"{json_text(document)}\n")
        elif text is not None:
            self.say(text)


def json_text(document: Mapping[str, Any]) -> str:
    """The document as ASCII; numbers that JSON lacks (NaN, infinity) are null."""
    text = json.dumps(plain(document), indent=1, allow_nan=False)
    return text.replace("\x7f", r"\u007f")  # the one control character that `dumps` leaves


def plain(value: Any) -> Any:
    """Dataclasses, NumPy arrays and tuples as the values that JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    tolist = getattr(value, "tolist", None)  # of NumPy's arrays and numbers
    if callable(tolist):
        return plain(tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
