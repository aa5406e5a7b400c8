"""The one loader of recipe files: on this machine or in a store, of one kind or of any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from dfn_ray.config.filtering import Recipe
from dfn_ray.config.load import parse_recipe
from dfn_ray.config.recipe_kinds import recipe_kind
from dfn_ray.errors import RecipeError
from dfn_ray.untrusted.regular_files import require_regular
from dfn_ray.uris import uri_argument

R = TypeVar("R")


@overload
def load_recipe(source: str | Path, overrides: Sequence[str] = (), kind: type[R] = Recipe) -> R: ...
@overload
def load_recipe(source: str | Path, overrides: Sequence[str] = (), kind: None = None) -> Any: ...
def load_recipe(
    source: str | Path, overrides: Sequence[str] = (), kind: type[Any] | None = Recipe
) -> Any:
    """The recipe in a TOML file, with `section.key=value` overrides applied.

    `source` is a path, or a URI of any store that pools are read from. `kind` None: the kind that
    the file describes. Raises RecipeError with every mistake, by dotted name, and StorageError if a
    store does not return the file.
    """
    is_uri = isinstance(source, str) and "://" in source and not source.startswith("/")
    text = _read_uri(uri_argument(str(source))) if is_uri else _read_file(Path(source))
    return parse_recipe(text, overrides, kind or recipe_kind(text), source=str(source))


def _read_uri(uri: str) -> bytes:
    from dfn_ray.storage import read_uri  # noqa: PLC0415  loads fsspec, which files do not need

    return read_uri(uri)


def _read_file(path: Path) -> bytes:
    try:
        if not path.is_dir():  # which is an OSError below
            require_regular(str(path), "recipe")
        return path.read_bytes()
    except FileNotFoundError:
        raise RecipeError([f"{path}: no such file"]) from None
    except OSError as error:
        problem = f"{path}: cannot be read: {error.strerror}; need a TOML file that you may read"
        raise RecipeError([problem]) from None
