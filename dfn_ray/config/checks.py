"""What settings are checked for. Every message reads `name: need ..., got ...`."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic

STRICT = pydantic.ConfigDict(extra="forbid")
"""A misspelt setting is an error."""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


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
