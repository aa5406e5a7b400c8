"""Options that several verbs share: URIs, a recipe with its overrides, --budget, --json."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from typing import Any

import click
from click.shell_completion import CompletionItem

from dfn_ray.cli.output import Output
from dfn_ray.cli.recipe_argument import GivenRecipe, budget_setting
from dfn_ray.errors import InputError
from dfn_ray.uris import require_valid_uri, uri_argument

Verb = Callable[..., None]


class Uri(click.ParamType):
    """A path or URI without secrets that can be read or, as a target, written to."""

    name = "uri"

    def __init__(self, *, is_target: bool = False) -> None:
        self.is_target = is_target

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The URI, its scheme in lower case. Raises InputError that names the option."""
        name = _shown_name(param)
        try:
            uri = uri_argument(value)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        require_valid_uri(uri, name, is_target=self.is_target)
        return uri

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Leaves completion to the shell, by file names."""
        return [CompletionItem(incomplete, type="file")]


URI = Uri()
TARGET_URI = Uri(is_target=True)


def takes_recipe(*, budget: bool = False) -> Callable[[Verb], Verb]:
    """Adds RECIPE, --set, --dry-run and, if asked for, --budget; the verb gets them as `given`."""
    options = [
        click.argument("recipe", type=URI),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Override a setting of the recipe; may be repeated.",
        ),
        click.option(
            "--dry-run",
            is_flag=True,
            help="Print the resolved recipe, check everything that it refers to, and start "
            "nothing.",
        ),
    ]
    if budget:
        options.append(
            click.option(
                "--budget",
                metavar="AMOUNT",
                help="Stop scoring once the run has cost this much at the recipe's [prices] "
                "(12.50), or has scored for this long (2h). With a larger budget, the run resumes.",
            )
        )

    def decorate(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def with_recipe(
            *, recipe: str, overrides: tuple[str, ...], dry_run: bool, **others: Any
        ) -> None:
            name = str(click.get_current_context().info_name)
            settings = (*overrides, *budget_setting(others.pop("budget", None)))
            verb(given=GivenRecipe(name, recipe, settings, dry_run), **others)

        command: Verb = with_recipe
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def takes_json(verb: Verb) -> Verb:
    """Adds --json; the verb gets an `output`, and whatever else it prints goes to stderr then."""

    @functools.wraps(verb)
    def with_output(*, as_json: bool, **others: Any) -> None:
        output = Output(sys.stdout, as_json=as_json)
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            verb(output=output, **others)

    option = click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print the result as one JSON document on stdout; all other output goes to stderr.",
    )
    return option(with_output)


def _shown_name(param: click.Parameter | None) -> str:
    """The name of an argument or an option as the help shows it."""
    if param is None:
        return "URI"
    return param.opts[-1] if isinstance(param, click.Option) else str(param.name).upper()
