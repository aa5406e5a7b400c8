"""Sections build their validators when first used, and report mistakes before and after that."""

from __future__ import annotations

import subprocess
import sys

CODE = """
from dataclasses import replace

from pydantic import TypeAdapter

from dfn_ray import config
from dfn_ray.errors import RecipeError

SECTIONS = [value for value in vars(config).values() if hasattr(value, "__pydantic_complete__")]
assert len(SECTIONS) > 15
assert not any(kind.__pydantic_complete__ for kind in SECTIONS), "built at import"

def is_refused(make):
    try:
        make()
    except RecipeError as error:
        return "chunk_rows: need 1 <= chunk_rows <= 65536, got 0" in error.problems
    return False

wrong = {"uri": "x", "chunk_rows": 0}
FIRST
for _ in range(2):
    assert is_refused(lambda: config.Pool(**wrong))
    assert is_refused(lambda: replace(config.Pool(uri="x"), chunk_rows=0))
assert config.Pool.__pydantic_complete__
"""
FIRST_USES = {
    "itself": "",
    "a recipe": "config.recipe_from({'run_uri': 'r', 'pool': {'uri': 'x'}})",
    "an adapter": "TypeAdapter(config.Pool).validate_python({'uri': 'x'})",
    "its schema": "TypeAdapter(config.Pool).json_schema()",
    "stored values": "config.stored_pool({'pool': {'uri': 'x'}})",
}


def test_a_section_reports_its_mistakes_whatever_built_its_validator():
    for name, first in FIRST_USES.items():
        done = subprocess.run(
            [sys.executable, "-c", CODE.replace("FIRST", first)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"
