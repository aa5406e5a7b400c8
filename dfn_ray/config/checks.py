"""The types of settings: names for the ranges and texts that several sections share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError, PydanticKnownError

from dfn_ray.config.mistakes import IDENTIFIER, LABEL, NOT_BLANK
from dfn_ray.uris import normalised, secret_in, target_uri_problem, uri_problem

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveNumber = Annotated[float, Field(gt=0)]
NonNegativeNumber = Annotated[float, Field(ge=0)]

_MAX_INTEGER = 2**63
"""TOML promises 64 bits, and JSON readers of other languages hold no more."""


def plain_number(value: Any) -> Any:
    """The value, unless it is true or false, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


def plain_integer(value: Any) -> Any:
    """The value, unless it is true or false, or an integer of more than 64 bits."""
    if isinstance(value, bool):
        raise PydanticKnownError("int_type")
    if isinstance(value, int) and not -_MAX_INTEGER <= value < _MAX_INTEGER:
        raise PydanticCustomError("int_size", "an integer of at most 64 bits")
    return value


Counts = tuple[Annotated[NonNegative, pydantic.BeforeValidator(plain_integer)], ...]


def _without_credentials(text: str) -> str:
    """The text. A recipe is stored with its run, so that it must not contain credentials."""
    if where := secret_in(text):
        raise PydanticCustomError(
            "credentials",
            "need a URI without credentials, got one with {where} (not repeated here); set "
            "credentials in the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE, ...",
            {"where": where},
        )
    return text


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _flawless(uri: str, flaw_of: Callable[[str], str | None] = uri_problem) -> str:
    if flaw := flaw_of(uri):
        # No ValueError, which is for rules between settings.
        raise PydanticCustomError("uri", "a path or a URI; this {flaw}", {"flaw": flaw})
    return uri


_SAFE = pydantic.AfterValidator(_without_credentials)
_NORMALISED = pydantic.AfterValidator(normalised)

Text = Annotated[str, _SAFE, _NORMALISED]
"""A string without credentials. The scheme of a URI becomes lower case: `S3://` and `s3://` are one
run and one pool."""
Uri = Annotated[Text, pydantic.AfterValidator(_flawless)]
"""A path or URI that can be read; `dfn_ray.uris` lists the schemes."""
Target = Annotated[Text, pydantic.AfterValidator(partial(_flawless, flaw_of=target_uri_problem))]
"""A path or URI that can also be written to."""
_SomeUris = Annotated[tuple[Uri, ...], Field(min_length=1)]
Uris = Annotated[
    _SomeUris, pydantic.BeforeValidator(_as_list, json_schema_input_type=Uri | _SomeUris)
]
"""One URI or several."""
Texts = Annotated[
    tuple[Text, ...],
    pydantic.BeforeValidator(_as_list, json_schema_input_type=Text | tuple[Text, ...]),
]
"""One string or several."""
Name = Annotated[str, Field(pattern=NOT_BLANK), _SAFE, _NORMALISED]
Identifier = Annotated[str, Field(pattern=IDENTIFIER)]

_LabelText = Annotated[str, Field(pattern=LABEL)]
NodeLabels = Annotated[
    Mapping[_LabelText, _LabelText], Field(json_schema_extra={"additionalProperties": False})
]
"""Ray labels of nodes."""

_RAYS_OWN = ("CPU", "GPU", "memory", "object_store_memory")


def _custom(name: str) -> str:
    if name in _RAYS_OWN:
        needed = "a custom resource; cpus and gpus are settings of their own"
        raise PydanticCustomError("resource", needed)
    return name


CustomResources = Annotated[
    Mapping[
        Annotated[str, pydantic.AfterValidator(_custom)],
        Annotated[PositiveNumber, pydantic.BeforeValidator(plain_number)],
    ],
    Field(json_schema_extra={"propertyNames": {"not": {"enum": list(_RAYS_OWN)}}}),
]
"""Custom Ray resources and how much of each is reserved, > 0."""
