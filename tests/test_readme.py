"""The Python blocks of README run, and the command line accepts its commands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from dfn_ray.cli.verbs import VERBS
from dfn_ray.testing.sample_pools import photo

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
LOADING, SCORING = (block for language, block in BLOCKS if language == "python")
FILE_ENDINGS = ("parquet", "safetensors")
COMMANDS = [
    line for _, block in BLOCKS for line in block.splitlines() if line.startswith("dfn-ray ")
]


def executed(code: str) -> dict:
    names: dict = {}
    exec(code, names)
    return names


@pytest.mark.ray
def test_the_python_that_filters_and_reads_a_run_runs(finished, tmp_path, monkeypatch):
    (tmp_path / "recipe.toml").write_text(
        f'run_uri = "{finished.run_uri}"\n'
        f'pool = {{uri = ["{finished.pool.uri[0]}"], chunk_rows = 16}}\n'
        f'[[networks]]\nname = "dfn"\nmodel = "{finished.networks[0].model}"\n'
        "[select]\nkeep_fraction = 0.3\n[scorers]\nthreads = 1\n[execution]\nchunks_per_part = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    run = executed(LOADING)["run"]
    assert len(run.scores.to_pandas(["uid", "score_dfn"])) == 300
    assert run.subset.to_ray().count() == 90


def test_the_python_that_scores_a_folder_of_images_runs(network, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(photo(number))
        (tmp_path / "photos" / f"{number}.txt").write_text("a caption")
    monkeypatch.chdir(tmp_path)
    assert "hf-hub:apple/DFN-public" in SCORING
    scores = executed(SCORING.replace("hf-hub:apple/DFN-public", f"local-dir:{network}"))["scores"]
    assert scores.column_names == ["score", "status", "reason", "width", "height"]
    assert scores["score"].null_count == 0
    assert scores.num_rows == 3


def settings() -> dict[str, set[str]]:
    """Section -> its settings, of all kinds of recipes."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "docs" / "schemas").glob("*.json"):
        schema = json.loads(path.read_text())
        for name, value in schema["properties"].items():
            reference = re.search(r'"#/\$defs/(\w+)"', json.dumps(value))
            if reference:
                found.setdefault(name, set()).update(schema["$defs"][reference[1]]["properties"])
    return found


def test_each_setting_that_the_documents_name_exists():
    known = settings()
    named = {
        (path.name, section, setting)
        for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
        if path.name not in ("CHANGELOG.md", "experiments.md")
        for section, setting in re.findall(r"`(\w+)\.(\w+)(?: = [^`]*)?`", path.read_text())
        if section in known and setting not in FILE_ENDINGS
    }
    assert len(named) > 20
    assert not [item for item in sorted(named) if item[2] not in known[item[1]]]


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_is_one_that_the_command_line_accepts(line):
    _, verb, *arguments = shlex.split(line, comments=True)
    command = VERBS.commands[verb]
    # With its parent: click caches a command's help option, whose names the parent decides.
    with VERBS.make_context("dfn-ray", [verb, *arguments]) as parent:
        context = command.make_context(verb, arguments, parent=parent)  # raises UsageError
    assert context.params
