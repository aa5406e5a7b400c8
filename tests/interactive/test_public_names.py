"""The names that `import dfn_ray` offers: typed, lazy, and none of them a room."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import dfn_ray
from dfn_ray import errors


@pytest.mark.parametrize("name", dfn_ray.__all__)
def test_every_public_name_is_there(name):
    module, own_name = dfn_ray._HOMES[name]
    assert getattr(dfn_ray, name) is getattr(import_module(module), own_name)


def test_type_checkers_see_the_same_names_as_users():
    """The imports for type checkers are those of `__getattr__`."""
    tree = ast.parse(Path(dfn_ray.__file__).read_text())
    seen = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dfn_ray.")
        for alias in node.names
    }
    assert seen == dfn_ray._HOMES
    assert sorted(dfn_ray.__all__) == sorted(seen)
    assert (Path(dfn_ray.__file__).parent / "py.typed").is_file()


def test_no_public_name_is_a_room():
    rooms = {module.name for module in pkgutil.iter_modules(dfn_ray.__path__)}
    assert not rooms & set(dfn_ray.__all__)


def test_every_error_that_users_may_catch_is_public():
    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.DfnRayError)
    }
    assert tree == {name for name in dfn_ray.__all__ if name.endswith("Error")}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="filter_pol"):
        _ = dfn_ray.filter_pol
    assert "filter_pool" in dir(dfn_ray)


def test_the_import_loads_nothing_heavy_and_changes_nothing_in_the_process():
    code = """
import os, signal, sys, warnings
def state():
    return (list(sys.meta_path), list(sys.path), dict(os.environ), signal.getsignal(signal.SIGTERM),
            list(warnings.filters), sys.excepthook, sys.stdout, sys.stderr)
before, loaded = state(), set(sys.modules)
import dfn_ray
assert state() == before
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - loaded}))
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(found) <= {"dfn_ray", *sys.stdlib_module_names}
