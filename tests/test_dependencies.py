"""Every package that the library imports is a declared dependency."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
USERS_OWN = {"wandb", "mlflow", "transformers", "resvg_py"}
"""Optional packages of some recipes and networks, and of the demo's data. If one is missing, the
error names it."""


def imported() -> Iterator[str]:
    for path in (ROOT / "dfn_ray").rglob("*.py"):
        if "testing" in path.parts:
            continue  # imported by tests, which have the extra `dev`
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (name.name.partition(".")[0] for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.partition(".")[0]


def same(name: str) -> str:
    """A distribution's name, normalized (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *(r for name in extras if name != "dev" for r in extras[name]),
    ]
    declared = {same(re.split(r"[\[<>=,; ]", requirement)[0]) for requirement in asked}
    known = packages_distributions()
    others = set(imported()) - set(sys.stdlib_module_names) - {"dfn_ray", "_typeshed"} - USERS_OWN
    assert others > {"torch", "ray"}
    lacking = {
        name for name in others if not {same(found) for found in known.get(name, [name])} & declared
    }
    assert not lacking
