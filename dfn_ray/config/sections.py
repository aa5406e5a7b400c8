"""The decorator of recipe sections: frozen dataclasses that validate alike from TOML and Python.

Ranges are constraints in the annotations (`checks.py`). Rules between several settings stand in a
section's `__post_init__`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import field
from functools import wraps
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, dataclass_transform, get_args, get_origin

import pydantic
import pydantic.dataclasses

from dfn_ray.config.checks import plain_integer, plain_number
from dfn_ray.config.mistakes import BrokenRulesError, problems_of
from dfn_ray.errors import RecipeError

T = TypeVar("T")
STRICT = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False, defer_build=True)
"""A misspelt setting is an error, and so is a number that JSON cannot hold: nan, inf. Validators
are built when they are first used: importing `config` took half as long again with all of them."""


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

    def schema(section_class: Any, source: Any, handler: pydantic.GetCoreSchemaHandler) -> Any:
        # When pydantic builds the validator, it has just set its own __init__ again.
        section_class.__init__ = section_class.__init_reporting_mistakes__
        return handler(source)

    declared.__get_pydantic_core_schema__ = classmethod(schema)
    made: Any = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)(cls)
    made.__init__ = made.__init_reporting_mistakes__ = _reporting_mistakes(made.__init__)
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
    """Refuses true for 1, and integers of more than 64 bits, which pydantic accepts."""
    types = _alternatives(cls.__pydantic_fields__[info.field_name].annotation)
    if int in types:
        return plain_integer(value)
    return plain_number(value) if float in types else value


def _alternatives(annotation: Any) -> set[Any]:
    """The types that values of an annotation may have: `Positive | None` is an int or None."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_alternatives, get_args(annotation)))
    return {annotation}
