"""All verbs, by section as `dfn-ray --help` lists them, and shell completion."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence

import click
from click.shell_completion import get_completion_class

from dfn_ray import __version__
from dfn_ray.cli.cluster_verbs import doctor, plan, submit
from dfn_ray.cli.compare_verbs import compare
from dfn_ray.cli.filter_verbs import (
    export,
    filter_pool,
    materialize,
    score,
    select,
    verify,
)
from dfn_ray.cli.train_verbs import evaluate, pipeline, train
from dfn_ray.cli.try_verbs import demo, inspect
from dfn_ray.errors import shortened

PROGRAM = "dfn-ray"
COMPLETE = "_DFN_RAY_COMPLETE"
"""Environment variable by which a shell asks for completions."""
MAX_LINE_CHARS = 100


class Verbs(click.Group):
    """A group whose help lists its verbs by section."""

    def __init__(
        self, sections: Mapping[str, Sequence[click.Command]], help: str, epilog: str
    ) -> None:
        self._sections = sections
        verbs = {str(verb.name): verb for section in sections.values() for verb in section}
        super().__init__(
            PROGRAM,
            verbs,
            help=help,
            epilog=epilog,
            no_args_is_help=False,
            options_metavar="",
            subcommand_metavar="VERB [ARGUMENTS]...",
            context_settings={
                "help_option_names": ["-h", "--help"],
                "max_content_width": MAX_LINE_CHARS,
            },
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises UsageError with the whole help when there are no arguments."""
        if not args and not ctx.resilient_parsing:
            raise click.UsageError(f"need a verb\n\n{ctx.get_help()}")
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the verbs in the order of the help."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections of verbs, one after the other."""
        width = max(map(len, self.commands))
        for title, verbs in self._sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(str(verb.name).ljust(width), verb.short_help or "") for verb in verbs]
                )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that the first word names. Raises UsageError with the nearest names for none."""
        word = args[0]
        if word not in self.commands and not word.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(word, self.commands)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise click.UsageError(f"no such verb: {shortened(word)}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command("completion", short_help="Print a shell completion script for dfn-ray.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets a shell complete verbs, options and files.

    For bash: dfn-ray completion bash > ~/.local/share/bash-completion/completions/dfn-ray
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    sys.stdout.write(kind(root, {}, PROGRAM, COMPLETE).source())


SECTIONS = {
    "Try": (demo, inspect),
    "Filter": (filter_pool, score, select, materialize, export, verify),
    "Compare": (compare,),
    "Train": (train, evaluate, pipeline),
    "Cluster": (doctor, plan, submit),
    "Shell": (completion,),
}
VERBS = click.version_option(__version__, message="%(version)s")(
    Verbs(
        SECTIONS,
        help="Score an image-text pool with a data filtering network, keep exactly the k best "
        "samples, and train CLIP on them.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong input. "
        "'dfn-ray VERB --help' explains a verb.",
    )
)
