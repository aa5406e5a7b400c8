"""JSON and TOML from others, limited to one nesting depth for every reader and call stack.

Python's parsers, and all code that walks over a value later, recurse, and fail at a depth that
depends on the caller's stack. So brackets are counted before anything is parsed, in time linear in
the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

MAX_DEPTH = 100
"""Nested lists and objects, including the outermost. Python's own readers and writers allow 1,000
less the caller's stack, serde_json (Rust) 127; Arrow reads Parquet schemas of 100 levels."""

MAX_OWN_DEPTH = 2 * MAX_DEPTH
"""The same for files of dfn_ray's own, which embed values of others some levels down."""

_JSON = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{\]}]', re.DOTALL)
_TOML = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5}|\\?\Z)'
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+"?'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+"
    r"|[\[{\]}]",
    re.DOTALL,
)
"""Brackets, and the tokens that may contain some that do not count: strings, terminated or not, and
comments."""


class TooDeepError(ValueError):
    """Text or a value with more nested lists and objects than readers must accept."""


def parse_json(text: str, *, max_depth: int = MAX_DEPTH, **options: Any) -> Any:
    """The value of JSON text; options are those of `json.loads`.

    Raises ValueError, including TooDeepError.
    """
    _require_brackets(text, _JSON, max_depth)
    return json.loads(text, **options)


def require_shallow_toml(text: str) -> None:
    """Raises TooDeepError for TOML with more than MAX_DEPTH nested brackets."""
    _require_brackets(text, _TOML, MAX_DEPTH)


def require_shallow(value: Any) -> None:
    """Raises TooDeepError for a value of more than MAX_DEPTH nested lists and mappings."""
    level = _nesting([value])
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = [inner for item in level for inner in _nesting(_values(item))]
    if level:
        raise TooDeepError(_TOO_DEEP.format(MAX_DEPTH))


_TOO_DEEP = "lists or objects are nested too deeply: more than {} levels"


def _values(item: Any) -> Iterable[Any]:
    return item.values() if isinstance(item, Mapping) else item


def _nesting(values: Iterable[Any]) -> list[Any]:
    """Those of the values that contain others."""
    return [value for value in values if isinstance(value, Mapping | list | tuple)]


def _require_brackets(text: str, tokens: re.Pattern[str], most: int) -> None:
    if text.count("[") + text.count("{") <= most:
        return
    depth = 0
    for token in tokens.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
            if depth > most:
                raise TooDeepError(_TOO_DEEP.format(most))
        elif token[0] in ("]", "}"):
            depth -= 1
