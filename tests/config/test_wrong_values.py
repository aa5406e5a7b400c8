"""No value that TOML can hold, at any place of any recipe, is more than a mistake with a
sentence."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import Any

import pytest

from dfn_ray.config import recipe_from
from dfn_ray.errors import RecipeError
from tests.config.whole_recipes import VALUES, whole

Place = tuple[str | int, ...]
NEVER_RIGHT = {
    "a date": date(1979, 5, 27),
    "a time": time(7, 32),
    "a timestamp": datetime(1979, 5, 27, 7, 32, tzinfo=UTC),
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "a table": {"surprise": {"a": 1}},
    "arrays of arrays": [[[1]]],
    "an array of tables": [{"surprise": 1}],
    "an integer of thousands of digits": 16**5000,
    "a table of dates": {"surprise": date(1979, 5, 27)},
}
SOMETIMES_RIGHT = (
    True,
    False,
    0,
    -1,
    1,
    0.5,
    1e300,
    "",
    "x",
    "7",
    "nan",
    [],
    {},
    [1],
    ["x"],
    [{}],
    None,
)


def places_in(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every setting, table and item of a recipe, with its place."""
    if place:
        yield place, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places_in(inner, (*place, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places_in(inner, (*place, index))


def with_value(recipe: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(recipe)
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


@pytest.mark.parametrize("what", NEVER_RIGHT)
@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_a_value_of_a_wrong_type_is_named_with_its_setting(kind, what):
    recipe = whole(kind)
    for place, _ in places_in(recipe):
        with pytest.raises(RecipeError) as refusal:
            recipe_from(with_value(recipe, place, NEVER_RIGHT[what]), kind=kind)
        name = ".".join(map(str, place))
        problems = refusal.value.problems
        assert any(problem.startswith((f"{name}:", f"{name}.")) for problem in problems), (
            name,
            problems,
        )
        assert max(map(len, problems)) < 400


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_every_other_value_makes_a_recipe_or_a_sentence(kind):
    recipe = whole(kind)
    refused: list[list[str]] = []
    for place, _ in places_in(recipe):
        for value in SOMETIMES_RIGHT:
            try:
                recipe_from(with_value(recipe, place, value), kind=kind)
            except RecipeError as error:
                refused.append(error.problems)
    assert all(refused)
    assert all(": " in problem for problems in refused for problem in problems)


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_true_is_no_number_and_integers_have_64_bits(kind):
    recipe = whole(kind)
    for place, right in places_in(recipe):
        if isinstance(right, int | float) and not isinstance(right, bool):
            with pytest.raises(RecipeError, match=r"need (an integer|a number), got true"):
                recipe_from(with_value(recipe, place, True), kind=kind)
            if isinstance(right, int):
                with pytest.raises(RecipeError, match="need an integer of at most 64 bits, got"):
                    recipe_from(with_value(recipe, place, 2**80), kind=kind)


def test_mistakes_of_all_sections_and_overrides_are_reported_together():
    values = VALUES[next(iter(VALUES))] | {"rules": {"min_image_side": 0}, "surprise": date.min}
    with pytest.raises(RecipeError) as refusal:
        recipe_from(
            values,
            ["scorers.min_size=0", "pool.chunk_rows={a = 1}", "networks.7.name=x", "select.of=all"],
        )
    assert refusal.value.problems == [
        "--set networks.7.name=x: '7' is not one of the 1 items",
        "pool.chunk_rows: need an integer, got {'a': 1}",
        "rules.min_image_side: need min_image_side >= 1, got 0",
        "scorers.min_size: need min_size >= 1, got 0",
        "select.of: need 'pool', 'readable' or 'scored', got 'all'",
        "surprise: no such setting",
    ]
