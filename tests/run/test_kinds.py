"""Kinds of runs, states of selections and names of files are written in one place each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import dfn_ray
from dfn_ray.run import RUN, SELECTION, RunKind, State

FOLDER = Path(dfn_ray.__file__).parent
NAMES_HOMES = {"run/layout.py", "pool/listing/folders.py"}
"""The pool's listing knows a run by its name, without loading the run's code."""


def constants() -> Iterator[tuple[str, ast.AST, list[object]]]:
    """Comparisons and keyword arguments, with the string constants in them, by file."""
    for path in FOLDER.rglob("*.py"):
        name = path.relative_to(FOLDER).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            values = (
                [node.left, *node.comparators] if isinstance(node, ast.Compare)
                else [node.value] if isinstance(node, ast.keyword)
                else []
            )  # fmt: skip
            if values:
                yield name, node, [v.value for v in values if isinstance(v, ast.Constant)]


def test_no_kind_of_run_and_no_state_of_a_selection_is_a_bare_string():
    found = []
    for name, node, strings in constants():
        text = ast.unparse(node)
        if "kind" in text and set(strings) & set(RunKind):
            found.append(f"{name}: {text}")
        if "state" in text and set(strings) & set(State):
            found.append(f"{name}: {text}")
    assert found == []


def test_the_names_of_a_runs_record_and_selection_are_constants():
    found = [
        f"{path.relative_to(FOLDER).as_posix()}:{node.lineno}"
        for path in FOLDER.rglob("*.py")
        if path.relative_to(FOLDER).as_posix() not in NAMES_HOMES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in (RUN, SELECTION)
    ]
    assert found == []
