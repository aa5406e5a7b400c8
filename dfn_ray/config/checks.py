"""What settings are checked for. Every message reads `name: need ..., got ...`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import pydantic
import pydantic_core

from dfn_ray.uris import target_uri_problem, uri_problem

STRICT = pydantic.ConfigDict(extra="forbid")
"""A misspelt setting is an error."""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _flawless(uri: str, flaw_of: Callable[[str], str | None] = uri_problem) -> str:
    if flaw := flaw_of(uri):
        # No ValueError, which would be for rules between settings.
        raise pydantic_core.PydanticCustomError(
            "uri", "{flaw}", {"flaw": f"need a path or a URI; this {flaw}"}
        )
    return uri


Uri = Annotated[str, pydantic.AfterValidator(_flawless)]
"""A path or URI that can be read: `dfn_ray.uris` has the schemes."""
Target = Annotated[str, pydantic.AfterValidator(partial(_flawless, flaw_of=target_uri_problem))]
"""One that can be written to as well."""
Uris = Annotated[tuple[Uri, ...], pydantic.BeforeValidator(_listed)]
"""One URI or several."""
Texts = Annotated[tuple[str, ...], pydantic.BeforeValidator(_listed)]
"""One text or several."""


def between(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name}: need {low} <= {name} <= {high}, got {value}")


def at_least(name: str, value: float | None, low: float) -> None:
    """Raise ValueError unless value is None or >= low."""
    if value is not None and not value >= low:
        raise ValueError(f"{name}: need {name} >= {low}, got {value}")


def above(name: str, value: float, low: float) -> None:
    """Raise ValueError unless value > low."""
    if not value > low:
        raise ValueError(f"{name}: need {name} > {low}, got {value}")


_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?")
"""What Ray takes for keys and values of labels, but for its operators (`!a`, `in(a, b)`): nodes are counted by them."""
_OWN_SETTINGS = ("CPU", "GPU", "memory", "object_store_memory")


def placement(labels: Mapping[str, str], resources: Mapping[str, float]) -> None:
    """Raise ValueError unless nodes can be chosen by these labels and custom resources."""
    for name, value in labels.items():
        if not _LABEL.fullmatch(name) or not _LABEL.fullmatch(value):
            raise ValueError(
                f"labels: need keys and values of letters, digits and . _ - /, got {name!r} = {value!r}"
            )
    for name, amount in resources.items():
        if name in _OWN_SETTINGS:
            raise ValueError(
                f"resources: need custom resources; cpus and gpus are settings of their own, got {name}"
            )
        above(f"resources.{name}", amount, 0)
