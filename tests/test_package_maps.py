"""Every module is in its package's docstring, and every package in ARCHITECTURE.md."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(init.parent for init in (ROOT / "dfn_ray").rglob("__init__.py"))


def contents(package: Path) -> list[str]:
    """The modules of a package as NAME.py, and its sub-packages as NAME/."""
    modules = [path.name for path in package.glob("*.py") if path.name != "__init__.py"]
    return sorted(modules + [f"{path.parent.name}/" for path in package.glob("*/__init__.py")])


def unlisted(package: Path, docstring: str) -> list[str]:
    """The contents of a package that have no line of their own, with a description."""
    lines = [re.match(r" {4,}(\S+) +\S", line) for line in docstring.splitlines()]
    return sorted(set(contents(package)) - {line[1] for line in lines if line})


@pytest.mark.parametrize("package", PACKAGES[1:], ids=lambda path: path.name)
def test_the_docstring_of_a_package_lists_each_of_its_modules_on_a_line(package: Path):
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text()), clean=False)
    assert docstring
    assert not unlisted(package, docstring)


def test_a_line_less_is_noticed():
    package = ROOT / "dfn_ray/pool/tars"
    docstring = (package / "__init__.py").read_text()
    for name in contents(package):
        without = re.sub(rf"^ +{re.escape(name)} .*\n", "", docstring, flags=re.M)
        assert unlisted(package, without) == [name]


def test_the_layers_of_architecture_name_every_package():
    layers = (ROOT / "ARCHITECTURE.md").read_text().partition("## Layers")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)/?`", layers))
    assert {re.split(r"[./]", name)[0] for name in contents(ROOT / "dfn_ray")} <= named


MAX_MODULE_LINES, MAX_FUNCTION_LINES = 350, 60
MODULES = sorted((ROOT / "dfn_ray").rglob("*.py"))
STAGE_NAMES = {"__init__.py", "chain.py"}
"""Names that several packages use with one meaning."""


def test_modules_and_functions_are_short():
    long = [path for path in MODULES if len(path.read_text().splitlines()) > MAX_MODULE_LINES]
    functions = [
        f"{path.name}: {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not long
    assert not functions


def test_no_module_has_the_name_of_another_one():
    names = Counter(path.name for path in MODULES if "testing" not in path.parts)
    assert {name for name, count in names.items() if count > 1} <= STAGE_NAMES
