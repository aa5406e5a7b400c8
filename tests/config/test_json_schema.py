"""The JSON Schemas in docs/schemas: what the code generates, and what the shipped recipes are."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dfn_ray.config import recipe_from, recipe_kind, recipe_values
from dfn_ray.config.json_schema import KINDS, recipe_schema, write_schemas
from dfn_ray.demo.filter_demo import demo_recipe
from tests.config.test_wrong_values import places_in, with_value
from tests.config.whole_recipes import VALUES

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "docs" / "schemas"
BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
VERBS = {kind: verb for verb, kind in KINDS.items()}


def shipped_recipes() -> dict[str, str]:
    """Every TOML text of the repository that is a recipe or a part of one."""
    found = {str(path.relative_to(ROOT)): path.read_text() for path in ROOT.glob("cluster/*.toml")}
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("cluster/*.md")):
        blocks = re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        found |= {f"{page.relative_to(ROOT)} {place}": block for place, block in enumerate(blocks)}
    assert len(found) >= 5
    return found


def whole_values(text: str) -> dict[str, Any]:
    """The values of a recipe, or of a part of a filtering recipe with what it leaves out."""
    values = tomllib.loads(text)
    return values if "run_uri" in values else VALUES[KINDS["filter"]] | values


def validator(verb: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{verb}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def unordered(path):
    """A schema with its choices sorted."""
    return json.loads(
        path.read_text(),
        object_hook=lambda node: {k: sorted(v) if k == "enum" else v for k, v in node.items()},
    )


def test_the_schemas_in_docs_are_what_the_code_generates(tmp_path):
    write_schemas(tmp_path)
    # As values: versions of pydantic write bounds of floats as 0 or 0.0. Choices without order:
    # Python caches types, and open_clip's Literal of the same words has another one.
    generated = {path.name: unordered(path) for path in tmp_path.iterdir()}
    stored = {path.name: unordered(path) for path in SCHEMAS.iterdir()}
    assert generated == stored, "run: python -m dfn_ray.config.json_schema docs/schemas"


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_is_valid_and_a_misspelt_key_in_it_is_not(name):
    text = shipped_recipes()[name]
    kind = recipe_kind(text.encode())
    values = whole_values(text)
    schema = validator(VERBS[kind])
    schema.validate(values)
    recipe_from(values, kind=kind)
    tables = [(), *(place for place, value in places_in(values) if isinstance(value, dict))]
    for place in tables:
        if place and place[-1] in ("labels", "resources"):
            continue  # their keys are the user's
        assert not schema.is_valid(with_value(values, (*place, "misspelt"), 1)), place


def test_the_demos_recipes_are_valid(tmp_path):
    validator("filter").validate(without_null(recipe_values(demo_recipe(tmp_path))))


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_a_recipe_with_every_section_is_valid_and_every_setting_described(kind):
    validator(VERBS[kind]).validate(VALUES[kind])
    schema = recipe_schema(VERBS[kind])
    for section in (schema, *schema["$defs"].values()):
        assert section["additionalProperties"] is False
        assert all(setting["description"] for setting in section["properties"].values())
    assert schema["properties"].keys() == {field.name for field in dataclasses.fields(kind)}


def test_descriptions_have_unit_and_range():
    units = {"_s": "Seconds", "_bytes": "Bytes", "_rows": "Samples", "_fraction": "fraction"}
    bare: list[str] = []
    for verb in KINDS:
        schema = recipe_schema(verb)
        for section in (schema, *schema["$defs"].values()):
            for name, setting in section["properties"].items():
                text = " ".join(setting["description"].split())
                unit = next((unit for end, unit in units.items() if name.endswith(end)), "")
                has_range = re.search(r">=? [\d`]|[\d`](,\d+)* (MiB |KiB )?to [-\d`]", text)
                if (setting.keys() & BOUNDS and not has_range) or unit not in text:
                    bare.append(name)
    assert bare == []


@pytest.mark.parametrize(
    ("verb", "place", "value"),
    [
        ("filter", ("pool", "chunk_rows"), 0),
        ("filter", ("pool", "chunk_rows"), 65_537),
        ("filter", ("pool", "chunk_rows"), True),
        ("filter", ("pool", "format"), "tar"),
        ("filter", ("decode", "timeout_s"), 0),
        ("filter", ("decode", "labels", "a!"), "b"),
        ("filter", ("scorers", "resources", "GPU"), 1),
        ("train", ("model",), None),
        ("train", ("sources",), []),
        ("evaluate", ("sets", 0, "name"), " "),
        ("pipeline", ("train", "run_uri"), "x"),
        ("pipeline", ("train", "optimizer"), {"learning_rate": 0}),
        ("pipeline", ("rules", "min_image_side"), 0),
    ],
)
def test_the_schema_refuses_what_the_recipe_refuses(verb, place, value):
    values = copy.deepcopy(VALUES[KINDS[verb]])
    assert not validator(verb).is_valid(with_value(values, place, value))


def test_a_scale_makes_what_it_sets_optional():
    sources = [{"pool": {"uri": "p"}}]
    schema = validator("train")
    assert schema.is_valid({"run_uri": "r", "sources": sources, "scale": "small"})
    assert schema.is_valid(
        {"run_uri": "r", "sources": sources, "scale": "small", "model": {"pretrained": "openai"}}
    )
    assert not schema.is_valid({"run_uri": "r", "sources": sources})
    model = {"pretrained": "openai"}
    sizes = {"samples_seen": 10, "batch_size": 1, "model": model}
    assert not schema.is_valid({"run_uri": "r", "sources": sources, **sizes})
    model["model"] = "ViT-B-32"
    assert schema.is_valid({"run_uri": "r", "sources": sources, **sizes})


def without_null(value: Any) -> Any:
    """The values of a resolved recipe as TOML holds them."""
    if isinstance(value, dict):
        return {key: without_null(inner) for key, inner in value.items() if inner is not None}
    return [without_null(item) for item in value] if isinstance(value, list) else value
