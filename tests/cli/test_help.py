"""The help: sections, widths, speed, and what it promises about the verbs."""

from __future__ import annotations

import re
import resource
import subprocess
import sys

import click
import pytest

from dfn_ray.cli import run
from dfn_ray.cli.cluster_verbs import RECIPE_KINDS
from dfn_ray.cli.verbs import SECTIONS, VERBS

WORDS = [[], *([name] for name in VERBS.commands)]
SECONDS = 0.3
"""Of a CPU, for `dfn-ray --help`."""


def params_of(verb: str) -> dict[str, click.Parameter]:
    return {str(param.name): param for param in VERBS.commands[verb].params}


def test_the_verbs_are_listed_by_section(capsys):
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    sections = re.findall(r"^(\w+):\n((?:  .*\n)+)", said, flags=re.MULTILINE)
    listed = {title: re.findall(r"^  (\w+) ", text, flags=re.MULTILINE) for title, text in sections}
    del listed["Options"]
    assert listed == {
        "Try": ["demo", "inspect"],
        "Filter": ["filter", "score", "select", "materialize", "export", "verify"],
        "Compare": ["compare"],
        "Train": ["train", "evaluate", "pipeline"],
        "Cluster": ["doctor", "plan", "submit"],
        "Shell": ["completion"],
    }
    assert list(listed) == list(SECTIONS)


@pytest.mark.parametrize("columns", [60, 100])
@pytest.mark.parametrize("words", WORDS, ids=lambda words: words[0] if words else "dfn-ray")
def test_every_help_fits_the_terminal_and_has_no_colour(words, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run([*words, "-h"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Usage: dfn-ray")
    assert max(map(len, said.splitlines())) <= columns
    assert said.isascii()
    assert "\x1b" not in said
    assert "..." not in re.sub(r"(URI|\])\.\.\.", "", said), "a text was cut"


def test_without_a_verb_the_help_comes_with_exit_code_2(capsys):
    assert run([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("dfn-ray: need a verb\n\nUsage: dfn-ray VERB")
    assert "  filter " in said.err


def test_a_wrong_option_names_the_verb_and_its_usage(capsys):
    assert run(["filter", "recipe.toml", "--no-such-option"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("dfn-ray filter: ")
    assert "--no-such-option" in said
    assert "Usage: dfn-ray filter [OPTIONS] RECIPE" in said


def test_the_version_is_printed(capsys):
    from dfn_ray import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_submit_takes_every_verb_over_a_recipe():
    over_recipes = [name for name in VERBS.commands if "recipe" in params_of(name)]
    assert set(RECIPE_KINDS) == set(over_recipes) - {"submit"}
    assert all(name in str(VERBS.commands["submit"].help) for name in RECIPE_KINDS)


def test_every_verb_that_ends_in_a_result_takes_json():
    without = {name for name in VERBS.commands if "as_json" not in params_of(name)}
    assert without == {"demo", "score", "submit", "completion"}


def test_the_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys; from dfn_ray.cli import run; code = run(['--help']); "
        "print(code, {'ray', 'torch', 'numpy', 'pyarrow', 'pydantic', 'fsspec'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    taken = []
    for _ in range(3):
        before = cpu_seconds()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        taken.append(cpu_seconds() - before)
        assert done.stdout.splitlines()[-1] == "0 set()"
    assert min(taken) < SECONDS


def cpu_seconds() -> float:
    """CPU time of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
