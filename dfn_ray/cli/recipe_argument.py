"""A recipe as the command line names it: loaded or, by a dry run, checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dfn_ray.cli.documents import finding_values
from dfn_ray.cli.output import Output
from dfn_ray.errors import DfnRayError, RecipeError

DEMO = "demo"
"""In the place of a recipe of `pipeline`: the one that ships with the package."""
ON_RAY = frozenset({"filter", "score", "materialize", "train", "evaluate", "pipeline"})
"""Verbs over a recipe that write by Ray; they check that one is reachable before they write."""
R = TypeVar("R")


@dataclass(frozen=True)
class GivenRecipe:
    """A recipe as a verb was given it."""

    verb: str
    uri: str
    overrides: tuple[str, ...]
    """Settings, `section.key=value`."""
    dry_run: bool

    def load(self, kind: type[R] | None) -> R | Any:
        """The recipe, of a file, of a URI, or the one that ships with the package.

        `kind` None takes a recipe of any kind.
        """
        from dfn_ray.config import PipelineRecipe, recipe_from
        from dfn_ray.config.recipe_files import load_recipe

        is_demo = self.uri == DEMO and not Path(DEMO).exists()
        if is_demo and kind in (PipelineRecipe, None):
            from dfn_ray.demo.pipeline_demo import pipeline_demo_values

            return recipe_from(pipeline_demo_values(), self.overrides, PipelineRecipe)
        return load_recipe(self.uri, self.overrides, kind)


def recipe_to_run(
    given: GivenRecipe,
    kind: type[R] | None,
    output: Output,
    *,
    uid_list: str | None = None,
    out_uri: str | None = None,
) -> R | Any | None:
    """The recipe that a verb should run; None after a dry run, which printed what it found."""
    recipe = given.load(kind)
    if uid_list is None:
        require_networks(recipe)
    if given.dry_run:
        _dry_run(given.verb, recipe, output, uid_list, out_uri)
        return None
    if given.verb in ON_RAY:
        from dfn_ray.on_ray.ray_address import check_ray_reachable

        check_ray_reachable()
    return recipe


def require_networks(recipe: Any) -> None:
    """Raises RecipeError for a recipe of filtering without networks: only uid lists need none."""
    from dfn_ray.config import Recipe

    if isinstance(recipe, Recipe):
        recipe.require_networks()


def _dry_run(
    verb: str, recipe: Any, output: Output, uid_list: str | None, out_uri: str | None
) -> None:
    from dfn_ray.config import recipe_values
    from dfn_ray.dry_run.recipes import dry_run, figures

    values = recipe_values(recipe)
    output.say(json.dumps(values, indent=1))
    problem = None
    try:
        dry_run(verb, recipe, uid_list=uid_list, out_uri=out_uri, report=output.report_line)
    except DfnRayError as error:
        problem = error
    output.say(figures(recipe))
    output.finish({"recipe": values, "findings": list(map(finding_values, output.findings))})
    if problem is not None:
        raise problem


def budget_setting(budget: str | None) -> list[str]:
    """The setting that a value of --budget stands for: hours with an h, else money."""
    if budget is None:
        return []
    number = budget.removesuffix("h")
    try:
        float(number)
    except ValueError:
        need = "an amount in the currency of [prices], such as 12.50, or hours, such as 2h or 0.5h"
        raise RecipeError([f"--budget: need {need}, got {budget}"]) from None
    return [f"prices.budget={number}" if number == budget else f"execution.max_hours={number}"]
