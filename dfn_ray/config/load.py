"""From TOML and `--set` to a validated recipe, and from a recipe to plain values and back."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from dfn_ray.config.filtering import Pool, Recipe
from dfn_ray.errors import RecipeError, shortened
from dfn_ray.untrusted.json_text import TooDeepError, require_shallow, require_shallow_toml
from dfn_ray.untrusted.regular_files import require_regular
from dfn_ray.uris import normalised, secret_in

R = TypeVar("R")
_TOO_DEEP = "lists or tables are nested too deeply; no setting needs more than a few levels"


def load_recipe(source: str | Path, overrides: Sequence[str] = (), kind: type[R] = Recipe) -> R:
    """The recipe in the TOML file `source` with `section.key=value` overrides applied.

    Raises RecipeError with every mistake, by dotted name.
    """
    path = Path(source)
    try:
        if not path.is_dir():  # which is an OSError below
            require_regular(str(path), "recipe")
        text = path.read_bytes()
    except FileNotFoundError:
        raise RecipeError([f"{path}: no such file"]) from None
    except OSError as error:
        problem = f"{path}: cannot be read: {error.strerror}; need a TOML file that you may read"
        raise RecipeError([problem]) from None
    return parse_recipe(text, overrides, kind, source=str(path))


def parse_recipe(
    text: bytes, overrides: Sequence[str] = (), kind: type[R] = Recipe, *, source: str
) -> R:
    """The recipe that a TOML text describes, with overrides applied; `source` names it in errors."""
    try:
        values = parsed_toml(text.decode())
    except TooDeepError:
        raise RecipeError([f"{source}: {_TOO_DEEP}"]) from None
    except ValueError as error:  # not UTF-8, not TOML, or an integer of thousands of digits
        raise RecipeError([f"{source}: not TOML: {error}"]) from None
    return recipe_from(values, overrides, kind)


def recipe_from(
    values: Mapping[str, Any], overrides: Sequence[str] = (), kind: type[R] = Recipe
) -> R:
    """The recipe that plain values (as TOML or JSON give them) describe, with overrides applied."""
    try:
        require_shallow(values)
        _require_no_dates(values)
        merged = json.loads(json.dumps(values))
        for override in overrides:
            _apply(merged, override)
        require_shallow(merged)
        _require_no_dates(merged)
        if problems := list(_secrets(merged)):
            raise RecipeError(problems)
        return _adapter(kind).validate_python(_spelled_alike(merged))
    except TooDeepError:
        raise RecipeError([_TOO_DEEP]) from None
    except pydantic.ValidationError as error:
        raise RecipeError([_problem(e, kind) for e in error.errors()]) from None


def recipe_values(recipe: Any) -> dict[str, Any]:
    """The resolved recipe as plain JSON values; `recipe_from` reads it back."""
    return _adapter(type(recipe)).dump_python(recipe, mode="json")


def stored_pool(values: Mapping[str, Any]) -> Pool:
    """`[pool]` of the recipe that a run stored, whatever else that recipe has."""
    return _adapter(Pool).validate_python(values["pool"])


def parsed_toml(text: str) -> dict[str, Any]:
    """The values of a TOML text. Raises ValueError when it is none, TooDeepError when it is nested too deeply."""
    require_shallow_toml(text)
    return tomllib.loads(text)


@cache
def _adapter(kind: type[R]) -> pydantic.TypeAdapter[R]:
    return pydantic.TypeAdapter(kind)


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one `section.key=value` (TOML value, bare words are strings; list items by number)."""
    name, separator, text = override.partition("=")
    keys = name.strip().split(".")
    if not separator or not all(keys):
        raise RecipeError([f"--set {override}: need section.key=value"])
    target: Any = values
    for key in keys[:-1]:
        if isinstance(target, list):
            if not key.isdigit() or int(key) >= len(target):
                raise RecipeError(
                    [f"--set {override}: {key!r} is not one of the {len(target)} items"]
                )
            target = target[int(key)]
        else:
            target = target.setdefault(key, {})
        if not isinstance(target, dict | list):
            raise RecipeError([f"--set {override}: {key!r} is a value, not a section"])
    if not isinstance(target, dict):
        raise RecipeError([f"--set {override}: {keys[-1]!r} does not name a setting"])
    if text.strip() == "none":
        target[keys[-1]] = None
        return
    try:
        target[keys[-1]] = parsed_toml(f"value = {text}")["value"]
    except TooDeepError:
        raise RecipeError([f"--set {name}: {_TOO_DEEP}"]) from None
    except ValueError:  # as in `parse_recipe`
        target[keys[-1]] = text


def _secrets(values: Any) -> Iterator[str]:
    """What is wrong with URIs that hold credentials, which a recipe, being stored with the run, must not."""
    for name, value in _leaves(values):
        if isinstance(value, str) and (where := secret_in(value)):
            yield (
                f"{name}: need a URI without credentials, got one with {where} (not repeated here); give credentials "
                "by the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ..."
            )


def _require_no_dates(values: Any) -> None:
    """Raise RecipeError for a date or a time: TOML has types for them, no setting takes one."""
    for name, value in _leaves(values):
        if isinstance(value, date | time):
            raise RecipeError(
                [f"{name}: no setting takes a date or a time, got {value}; put a string in quotes"]
            )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values in lists and tables, each with its dotted name."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _spelled_alike(value: Any) -> Any:
    """Values with the schemes of URIs in lower case, so that `S3://` and `s3://` are one run and one pool."""
    if isinstance(value, str):
        return normalised(value)
    if isinstance(value, list):
        return [_spelled_alike(item) for item in value]
    if isinstance(value, dict):
        return {key: _spelled_alike(item) for key, item in value.items()}
    return value


def _problem(error: Any, kind: type) -> str:
    """One validation error as `dotted.name: need ..., got ...`."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":
        message = str(error["ctx"]["error"])
        return f"{where}.{message}" if where else message
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{where}: no such setting{_alike(str(error['loc'][-1]), kind)}"
    if error["type"] in ("missing", "missing_argument"):
        return f"{where}: missing"
    message = error["msg"] if error["type"] == "uri" else error["msg"].lower()
    return f"{where}: {message}, got {shortened(repr(error['input']))}"


def _alike(name: str, kind: type) -> str:
    """The setting that a misspelt one may stand for."""
    close = difflib.get_close_matches(name, set(_names(_adapter(kind).json_schema())), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _names(schema: Any) -> Iterator[str]:
    """The names of all settings in a JSON schema."""
    if isinstance(schema, dict):
        yield from schema.get("properties", ())
        for part in schema.values():
            yield from _names(part)
