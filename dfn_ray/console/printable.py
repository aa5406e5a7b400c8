"""Text of a pool or a store as it may be printed: nothing in it moves a terminal's cursor, and no encoding refuses it."""

from __future__ import annotations

import io
import re
import sys

_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""C0 and C1 controls but for tab and line feed, marks that turn the direction of writing (UAX #9), Unicode's line ends, and
what stands for bytes that are not UTF-8."""
_CONTROL = re.compile(f"[{_CONTROLS}]")
_IN_LINE = re.compile(rf"[\n{_CONTROLS}]")


def printable(text: str) -> str:
    r"""The text with control characters as escapes (`\x1b`); line feeds and tabs stay."""
    return _CONTROL.sub(_escape, text)


def printable_line(text: str) -> str:
    r"""The text as one line: line feeds are escapes (`\n`) too."""
    return _IN_LINE.sub(_escape, text)


def print_in_any_encoding() -> None:
    """Let this process's stdout and stderr escape what their encoding does not have, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
