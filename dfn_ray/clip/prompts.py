"""Class names and prompt templates: what a label is called in a caption."""

from __future__ import annotations

from collections.abc import Sequence

from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

from dfn_ray.errors import InputError

NAMED_TEMPLATES = {"openai": OPENAI_IMAGENET_TEMPLATES, "simple": SIMPLE_IMAGENET_TEMPLATES}
"""open_clip's, which come as functions of the class name."""


def prompt_templates(given: Sequence[str]) -> tuple[str, ...]:
    """The templates as texts with `{}` for the class name; `openai` and `simple` stand for open_clip's.

    Raises InputError for a text without `{}`. CLIP_benchmark's `{c}` is taken as well.
    """
    found: list[str] = []
    for text in given:
        if text in NAMED_TEMPLATES:
            found += [template("{}") for template in NAMED_TEMPLATES[text]]
        elif "{}" in text or "{c}" in text:
            found.append(text.replace("{c}", "{}"))
        else:
            raise InputError(
                f"template {text!r}: need {{}} where the class name goes, or one of {', '.join(NAMED_TEMPLATES)}"
            )
    return tuple(found)


def class_names(given: Sequence[str], read: Sequence[str] | None = None) -> tuple[str, ...]:
    """The class names in label order: those given, `imagenet` for open_clip's 1,000, or the lines `read` from a file."""
    if read is not None:
        return tuple(line.strip() for line in read if line.strip())
    return tuple(IMAGENET_CLASSNAMES) if tuple(given) == ("imagenet",) else tuple(given)
