"""Conversion of TOML and `--set` into a validated recipe, and of a recipe into plain values."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import pydantic

from dfn_ray.config.filtering import Recipe
from dfn_ray.config.mistakes import problems_of
from dfn_ray.config.pool import Pool
from dfn_ray.errors import RecipeError
from dfn_ray.untrusted.json_text import TooDeepError, require_shallow, require_shallow_toml

R = TypeVar("R")
_TOO_DEEP = "lists or tables are nested too deeply; no setting needs more than a few levels"


def parse_recipe(
    text: bytes, overrides: Sequence[str] = (), kind: type[R] = Recipe, *, source: str
) -> R:
    """The recipe in a TOML text, with overrides applied; `source` is its name in errors."""
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
    """The recipe in plain values, as TOML and JSON have them, with overrides applied."""
    try:
        require_shallow(values)
        merged = _copied(values)
        problems = _apply_overrides(merged, overrides)
        require_shallow(merged)
    except TooDeepError:
        raise RecipeError([_TOO_DEEP]) from None
    try:
        recipe: Any = _adapter(kind).validate_python(merged)
    except pydantic.ValidationError as error:
        raise RecipeError(problems + problems_of(error, kind)) from None
    if problems:
        raise RecipeError(problems)
    return recipe


def recipe_values(recipe: Any) -> dict[str, Any]:
    """The resolved recipe as plain JSON values; `recipe_from` reads it back."""
    return _adapter(type(recipe)).dump_python(recipe, mode="json")


def stored_pool(values: Mapping[str, Any]) -> Pool:
    """`[pool]` of a recipe stored by a run, whatever its other sections are."""
    return _adapter(Pool).validate_python(values["pool"])


def parsed_toml(text: str) -> dict[str, Any]:
    """The values of a TOML text.

    Raises ValueError if it is not TOML, TooDeepError if it is nested too deeply.
    """
    require_shallow_toml(text)
    return tomllib.loads(text)


@cache
def _adapter(kind: type[R]) -> pydantic.TypeAdapter[R]:
    return pydantic.TypeAdapter(kind)


def _copied(value: Any) -> Any:
    """A copy whose tables and lists can be changed without changing the original."""
    if isinstance(value, Mapping):
        return {str(key): _copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(inner) for inner in value]
    return value


def _apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Applies overrides to `values`; returns the problems of those that cannot be applied."""
    problems: list[str] = []
    for override in overrides:
        try:
            _apply(values, override)
        except RecipeError as error:
            problems += error.problems
    return problems


def _apply(values: dict[str, Any], override: str) -> None:
    """Sets one `section.key=value`: a TOML value or a bare word; items of lists by number."""
    name, separator, text = override.partition("=")
    keys = name.strip().split(".")
    if not separator or not all(keys):
        raise RecipeError([f"--set {override}: need section.key=value"])
    target: Any = values
    for key in keys[:-1]:
        if isinstance(target, list):
            if not key.isdigit() or int(key) >= len(target):
                problem = f"{key!r} is not one of the {len(target)} items"
                raise RecipeError([f"--set {override}: {problem}"])
            target = target[int(key)]
        else:
            target = target.setdefault(key, {})
        if not isinstance(target, dict | list):
            raise RecipeError([f"--set {override}: {key!r} is a value, not a section"])
    if not isinstance(target, dict):
        place = ".".join(keys[:-1])
        how = (
            f"set the whole list, {place}=[...]"
            if keys[-1].isdigit()
            else f"name an item, e.g. {place}.0.{keys[-1]}"
        )
        raise RecipeError([f"--set {override}: {place} is a list: {how}"])
    if text.strip() == "none":
        target[keys[-1]] = None
        return
    try:
        target[keys[-1]] = parsed_toml(f"value = {text}")["value"]
    except TooDeepError:
        raise RecipeError([f"--set {name}: {_TOO_DEEP}"]) from None
    except ValueError:  # as in `parse_recipe`
        target[keys[-1]] = text
