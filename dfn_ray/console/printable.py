"""Escapes for text from pools and stores: it cannot control a terminal or fail to encode."""

from __future__ import annotations

import io
import re
import sys

_CONTROLS = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    r"\ud800-\udfff"
)
"""C0 and C1 controls except tab and line feed, bidirectional formatting characters (UAX #9),
Unicode's line separators, and surrogates, which stand for bytes that are not UTF-8."""
_CONTROL = re.compile(f"[{_CONTROLS}]")
_IN_LINE = re.compile(rf"[\n{_CONTROLS}]")


def printable(text: str) -> str:
    r"""The text with control characters escaped (`\x1b`); line feeds and tabs are kept."""
    return _CONTROL.sub(_escape, text)


def printable_line(text: str) -> str:
    r"""The text as one line: line feeds are escaped (`\n`) too."""
    return _IN_LINE.sub(_escape, text)


def print_in_any_encoding() -> None:
    """Makes stdout and stderr escape characters that their encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
