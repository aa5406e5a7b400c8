"""JSON Schema of the recipes, for editors: `python -m dfn_ray.config.json_schema docs/schemas`.

Types, ranges, defaults and choices come from the annotations, descriptions from the docstrings.
Rules between several settings are not in the schema.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dfn_ray import config
from dfn_ray.config.mistakes import json_schema

KINDS: Mapping[str, type] = {
    "filter": config.Recipe,
    "train": config.TrainRecipe,
    "evaluate": config.EvaluateRecipe,
    "pipeline": config.PipelineRecipe,
}
"""Recipes by the verb that takes them."""
_SET_BY_SCALE = ("model", "samples_seen", "batch_size")
_STAGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "dfn": ("train", ("run_uri",)),
    "train": ("train", ("run_uri", "sources", "seed")),
    "filter": ("filter", ("run_uri", "pool")),
    "evaluate": ("evaluate", ("run_uri", "network")),
}
"""Sections of a pipeline: the verb whose recipe they are, and the settings that are filled in."""


def recipe_schema(verb: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the recipes that a verb takes; TOML has no null."""
    schema = _without_null(json_schema(KINDS[verb]))
    docstrings = _docstrings()
    for name, section in {**schema["$defs"], KINDS[verb].__name__: schema}.items():
        section["description"] = docstrings[name]
        for setting, node in section["properties"].items():
            node.pop("title", None)
            node["description"] = docstrings[f"{name}.{setting}"]
    if verb == "train":
        _require_without_scale(schema)
    if verb == "pipeline":
        _describe_stages(schema)
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **schema, "title": f"dfn-ray {verb}"}


def write_schemas(folder: Path) -> None:
    """Writes `<verb>.schema.json` of every verb with a recipe of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for verb in KINDS:
        text = json.dumps(recipe_schema(verb), indent=1, ensure_ascii=False, sort_keys=True)
        (folder / f"{verb}.schema.json").write_text(text + "\n", encoding="utf-8")


def _without_null(node: Any) -> Any:
    """A schema without the alternative null, and without defaults of null."""
    if isinstance(node, list):
        return [_without_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    rest = {
        key: _without_null(value)
        for key, value in node.items()
        if (key, value) != ("default", None)
    }
    choices = [choice for choice in rest.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del rest["anyOf"]
        return choices[0] | rest
    return rest | {"anyOf": choices} if choices else rest


def _require_without_scale(schema: dict[str, Any]) -> None:
    """Requires the settings that a scale sets only in recipes without one."""
    network = schema["$defs"].pop("Network")
    without = {"required": list(_SET_BY_SCALE), "properties": {"model": {}}}
    without["properties"]["model"]["required"] = network.pop("required")
    schema["$defs"]["TrainedNetwork"] = network
    schema["properties"]["model"]["$ref"] = "#/$defs/TrainedNetwork"
    schema["required"] = [name for name in schema["required"] if name not in _SET_BY_SCALE]
    schema |= {"if": {"required": ["scale"]}, "else": without}


def _describe_stages(schema: dict[str, Any]) -> None:
    """Replaces the free tables of a pipeline by its stages' recipes less what is filled in."""
    sections = schema["$defs"]
    for name, (verb, filled) in _STAGES.items():
        stage = recipe_schema(verb)
        sections |= stage.pop("$defs")
        for key in filled:
            del stage["properties"][key]
        stage["required"] = [key for key in stage["required"] if key not in filled]
        for key in ("$schema", "title", "description"):
            del stage[key]
        sections[name] = stage
    for name, section in (*((name, name) for name in _STAGES), ("rules", "Rules")):
        text = schema["properties"][name]["description"]
        schema["properties"][name] = {"$ref": f"#/$defs/{section}", "description": text}


def _docstrings() -> dict[str, str]:
    """The docstrings of all sections and of their settings: `Pool`, `Pool.uri`."""
    return dict(
        pair
        for kind in vars(config).values()
        if inspect.isclass(kind) and hasattr(kind, "__pydantic_fields__")
        for pair in _docstrings_of(kind)
    )


def _docstrings_of(kind: type) -> Iterator[tuple[str, str]]:
    yield kind.__name__, inspect.cleandoc(kind.__doc__ or "")
    (declared,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(declared, ast.ClassDef)
    for setting, behind in zip(declared.body, declared.body[1:], strict=False):
        match setting, behind:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield f"{kind.__name__}.{name}", inspect.cleandoc(text)


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
