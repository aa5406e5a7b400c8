"""Sentences for what validation finds: `dotted.name: need ..., got ...`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from functools import cache
from typing import Any

import pydantic

from dfn_ray.errors import shortened
from dfn_ray.uris import secret_in

_NEEDS: Mapping[str, str] = {
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string",
    "string_unicode": "a string that UTF-8 can hold",
    "dataclass_type": "a table",
    "dict_type": "a table",
    "mapping_type": "a table",
    "tuple_type": "an array",
    "list_type": "an array",
}
"""By pydantic's type of error."""
_RANGE_ERRORS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")

IDENTIFIER = r"^[^\W\d]\w*$"
LABEL = r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$"
"""The keys and values of labels that Ray takes, without its operators (`!a`, `in(a, b)`):
dfn_ray counts nodes by them."""
NOT_BLANK = r"\S"
_PATTERNS: Mapping[str, str] = {
    IDENTIFIER: "letters, digits and _",
    LABEL: "letters, digits and . _ - /",
    NOT_BLANK: "a text that is not blank",
}


class BrokenRulesError(ValueError):
    """Rules between settings that do not hold; `problems` names each as `name: need ...`."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


def problems_of(error: pydantic.ValidationError, kind: type) -> list[str]:
    """One sentence for every mistake that validation found in a recipe or section."""
    return [line for each in error.errors(include_url=False) for line in _sentences(each, kind)]


def shown(value: Any) -> str:
    """A value for a message, spelled as TOML spells it where that differs, without credentials."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, date | time):
        return str(value)
    if any(isinstance(leaf, str) and secret_in(leaf) for leaf in _leaves(value)):
        return "credentials (not repeated here)"
    try:
        return shortened(repr(value))
    except ValueError:  # Python prints no integers of more than 4,300 digits
        return "an integer of thousands of digits"


def _sentences(error: Any, kind: type) -> Iterator[str]:
    place = [part for part in error["loc"] if part != "[key]"]
    where = ".".join(map(str, place))
    found, value = error["type"], error["input"]
    if found == "value_error":
        cause = error["ctx"]["error"]
        for problem in getattr(cause, "problems", (str(cause),)):
            yield f"{where}.{problem}" if where else problem
    elif found in ("unexpected_keyword_argument", "extra_forbidden"):
        yield f"{where}: no such setting{_alike(place, kind)}"
    elif found == "unexpected_positional_argument":
        yield f"{kind.__name__} takes settings by name only, got {shown(value)}"
    elif found in ("missing", "missing_argument", "missing_keyword_only_argument"):
        yield f"{where}: missing"
    elif found == "credentials":
        yield f"{where}: {error['msg']}"
    elif isinstance(value, date | time):
        yield f"{where}: no setting takes a date or a time, got {value}; put a string in quotes"
    else:
        yield f"{where}: need {_need(error, place, kind)}"


def _need(error: Any, place: Sequence[Any], kind: type) -> str:
    found, context, got = error["type"], error.get("ctx", {}), f", got {shown(error['input'])}"
    if found in _RANGE_ERRORS:
        return _range(*_constraints(place, kind)) + got
    if found == "literal_error":
        return context["expected"] + got
    if found == "too_short":
        label, node = _constraints(place, kind)
        tables = f" [[{label}]]" if "$ref" in node.get("items", {}) else ""
        return f"at least one{tables}, got none"
    if found == "string_pattern_mismatch":
        return _PATTERNS[context["pattern"]] + got
    return _NEEDS.get(found, error["msg"]) + got


def _range(label: str, node: Mapping[str, Any]) -> str:
    """The range of a JSON schema's node: `0 < x <= 1`, `x >= 1`."""
    lows = [("<=", ">=", node.get("minimum")), ("<", ">", node.get("exclusiveMinimum"))]
    highs = [("<=", node.get("maximum")), ("<", node.get("exclusiveMaximum"))]
    low = next((each for each in lows if each[2] is not None), None)
    high = next((f" {sign} {bound}" for sign, bound in highs if bound is not None), "")
    if low is None:
        return label + high
    return f"{low[2]} {low[0]} {label}{high}" if high else f"{label} {low[1]} {low[2]}"


def _constraints(place: Sequence[Any], kind: type) -> tuple[str, Mapping[str, Any]]:
    """The name that a range calls a setting by, and its node in the JSON schema."""
    schema = json_schema(kind)
    label, node = "", _resolved(schema, schema)
    for part in place:
        if isinstance(part, int):
            label, node = f"{label}.{part}", node.get("items", {})
        elif part in node.get("properties", {}):
            label, node = str(part), node["properties"][part]
        else:
            label, node = f"{label}.{part}", _table_values(node)
        node = _resolved(node, schema)
    return label, node


def _table_values(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of the values of a table with keys of the user's."""
    named = list(node.get("patternProperties", {}).values())
    values = named[0] if named else node.get("additionalProperties")
    return values if isinstance(values, Mapping) else {}


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node behind references; of alternatives, the one that is neither null nor a string."""
    while True:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        elif "anyOf" in node:
            node = max(node["anyOf"], key=_weight)
        else:
            return node


def _weight(node: Mapping[str, Any]) -> int:
    return {"null": 0, "string": 1}.get(node.get("type", ""), 2)


@cache
def json_schema(kind: type) -> dict[str, Any]:
    """The JSON schema of a recipe or section as pydantic derives it."""
    return pydantic.TypeAdapter(kind).json_schema()


def _alike(place: Sequence[Any], kind: type) -> str:
    """The setting that a misspelt one may stand for, of the same section if that has one."""
    name = str(place[-1])
    own = _constraints(place[:-1], kind)[1].get("properties", ())
    if close := difflib.get_close_matches(name, own, n=1):
        return f"; did you mean {close[0]}?"
    schema = json_schema(kind)
    if close := difflib.get_close_matches(name, set(_names(schema)), n=1):
        sections = sorted(_sections_with(close[0], schema))
        where = " or ".join(f"{section}.{close[0]}" for section in sections) or close[0]
        return f"; did you mean {where}?"
    return ""


def _sections_with(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """The sections of a recipe that have a setting of this name."""
    for section, node in schema.get("properties", {}).items():
        reference = json.dumps(node)
        for kind, definition in schema.get("$defs", {}).items():
            if f'"#/$defs/{kind}"' in reference and name in definition.get("properties", ()):
                yield section


def _names(schema: Any) -> Iterator[str]:
    """The names of all settings in a JSON schema."""
    if isinstance(schema, dict):
        yield from schema.get("properties", ())
        for part in schema.values():
            yield from _names(part)


def _leaves(value: Any) -> Iterator[Any]:
    """The values in lists and tables, and the tables' keys."""
    if isinstance(value, Mapping):
        yield from value
        value = value.values()
    elif not isinstance(value, list | tuple):
        yield value
        return
    for inner in value:
        yield from _leaves(inner)
