"""Class names and prompt templates: from open_clip, from a file, or listed in a recipe."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dfn_ray.errors import InputError, StorageError
from dfn_ray.network.open_clip_registry import zero_shot_metadata
from dfn_ray.storage import read_uri

_PLACE = re.compile(r"\{c?\}")
"""Placeholder of the class name: `{}` in open_clip, `{c}` in CLIP_benchmark."""


def class_names(given: Sequence[str]) -> tuple[str, ...]:
    """The class names in label order.

    `given` is `imagenet` (open_clip's 1,000), a file with one name per line, or the names
    themselves. Raises InputError when a file is unreadable or empty.
    """
    if list(given) == ["imagenet"]:
        return tuple(zero_shot_metadata()["IMAGENET_CLASSNAMES"])
    return _lines(given, "class names")


def prompt_templates(given: Sequence[str]) -> tuple[str, ...]:
    """The templates: the lines of a file, or texts; `openai` and `simple` are open_clip's 80 and 7.

    Raises InputError when a template has no placeholder for a class name.
    """
    known = zero_shot_metadata()
    named = {
        "openai": known["OPENAI_IMAGENET_TEMPLATES"],
        "simple": known["SIMPLE_IMAGENET_TEMPLATES"],
    }
    templates: list[str] = []
    for text in _lines(given, "templates"):
        if text in named:
            templates += [template("{}") for template in named[text]]
        elif _PLACE.search(text):
            templates.append(text)
        else:
            raise InputError(
                f"templates: need {{}} or {{c}} for the class name, or one of {', '.join(named)}, "
                f"got {text!r}"
            )
    return tuple(templates)


def prompt(template: str, name: str) -> str:
    """The template with the class name inserted; without `str.format`: a template is data."""
    return _PLACE.sub(lambda _: name, template)


def _lines(given: Sequence[str], what: str) -> tuple[str, ...]:
    """The lines of a file if a single text names one, else the texts."""
    if len(given) == 1 and _is_file(given[0]):
        try:
            text = read_uri(given[0]).decode("utf-8-sig")
        except (StorageError, UnicodeDecodeError) as error:
            raise InputError(f"{what}: need a text file with one name per line: {error}") from error
        given = [line.strip() for line in text.rstrip().splitlines()]
    if not given:
        raise InputError(f"{what}: need at least one, got none")
    return tuple(given)


def _is_file(text: str) -> bool:
    """True for a path or URI, not for a template.

    A single text cannot be a class name: one class is no classification.
    """
    return ("/" in text or text.endswith(".txt")) and not _PLACE.search(text)
