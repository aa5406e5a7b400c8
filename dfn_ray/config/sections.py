"""The decorator of recipe sections: frozen dataclasses that validate alike from TOML and Python.

Ranges are constraints in the annotations (`checks.py`). Rules between several settings stand in a
section's `__post_init__`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import field
from functools import wraps
from typing import Any, TypeVar, dataclass_transform, get_args

import pydantic
import pydantic.dataclasses
from pydantic_core import PydanticCustomError, PydanticKnownError

from dfn_ray.config.mistakes import BrokenRulesError, problems_of
from dfn_ray.errors import RecipeError

T = TypeVar("T")
STRICT = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
"""A misspelt setting is an error, and so is a number that JSON cannot hold: nan, inf."""
_MAX_INTEGER = 2**63
"""TOML promises 64 bits; JSON readers of other languages hold no more."""


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(field, pydantic.Field)
)
def section(cls: type[T]) -> type[T]:
    """Returns the class as a frozen, keyword-only dataclass whose mistakes are one RecipeError.

    `dataclasses.replace`, `asdict`, `fields` and pickle work as for any dataclass.
    """
    declared: Any = cls
    declared.require_plain_numbers = pydantic.field_validator("*", mode="before")(
        classmethod(_require_plain_numbers)
    )
    made: Any = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)(cls)
    made.__init__ = _reporting_mistakes(made.__init__)
    return made


def require_rules(broken: Iterable[str]) -> None:
    """Raises BrokenRulesError with the rules that a section breaks, `name: need ...`, if any."""
    if problems := list(broken):
        raise BrokenRulesError(problems)


def _reporting_mistakes(initialise: Callable[..., None]) -> Callable[..., None]:
    @wraps(initialise)
    def __init__(self: Any, *positional: Any, **settings: Any) -> None:
        try:
            initialise(self, *positional, **settings)
        except pydantic.ValidationError as error:
            raise RecipeError(problems_of(error, type(self))) from None

    return __init__


def _require_plain_numbers(cls: Any, value: Any, info: pydantic.ValidationInfo) -> Any:
    """Refuses true for 1, and integers of more than 64 bits."""
    types = _types_in(cls.__pydantic_fields__[info.field_name].annotation)
    for item in value if isinstance(value, list | tuple) else (value,):
        if isinstance(item, bool) and bool not in types:
            if types & {int, float}:
                raise PydanticKnownError("int_type" if int in types else "float_type")
        elif isinstance(item, int) and not -_MAX_INTEGER <= item < _MAX_INTEGER:
            raise PydanticCustomError("int_size", "an integer of at most 64 bits")
    return value


def _types_in(annotation: Any) -> set[Any]:
    """The types that an annotation is composed of, itself included."""
    inner = get_args(annotation)
    return {annotation}.union(*map(_types_in, inner)) if inner else {annotation}
