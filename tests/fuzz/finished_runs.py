"""Runs to damage: finished and half-settled ones, with all kinds of bounds.

Shared by all workers.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import dfn_ray
from dfn_ray.config import Recipe
from dfn_ray.testing.sample_pools import write_pool
from tests.run import below_ray
from tests.run.below_ray import NEAR, TOO_HIGH, TOO_LOW, at_writes, filter_without_ray, recipe_of

KEEP_FRACTION = 0.5
_BOUNDS = {"near": NEAR, "high": TOO_HIGH, "low": TOO_LOW}
_SHARED = Path(tempfile.gettempdir())
"""Not the folder of a worker, which is removed with it: all must damage the same files."""
_HALF = "-half"
"""Suffix of runs whose driver stopped before their bytes were settled."""
NAMES = tuple(f"{bounds}{half}" for bounds in _BOUNDS for half in ("", _HALF))


class _StoppedError(Exception):
    """Stops a driver at a write."""


@dataclass(frozen=True)
class BaseRun:
    """A run as written."""

    folder: Path
    pool: Path
    bounds: tuple[float, float]
    files: dict[str, bytes]
    """Content of all its files by name, including those that drivers leave behind."""

    def recipe(self, folder: Path) -> Recipe:
        """The recipe of a copy of the run."""
        return recipe_of(folder, self.pool, KEEP_FRACTION)

    def write(self, folder: Path) -> None:
        """Writes a copy of the run."""
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)


@functools.cache
def base_run(name: str) -> BaseRun:
    """The run of this name, one of NAMES."""
    root = _made()
    folder = root / name
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    return BaseRun(folder, root / "pool", _BOUNDS[name.removesuffix(_HALF)], files)


def _made() -> Path:
    """The folder with the pool and all runs.

    One per version of the product, so that the same seed yields the same inputs.
    """
    code = hashlib.sha256()
    for path in (
        *sorted(Path(dfn_ray.__file__).parent.rglob("*.py")),
        Path(below_ray.__file__),
        Path(__file__),
    ):
        code.update(path.read_bytes())
    root = _SHARED / f"dfn-ray-fuzz-runs-{code.hexdigest()[:16]}"
    root.mkdir(exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "done").exists():
            _make(root)
            (root / "done").touch()
    return root


def _make(root: Path) -> None:
    for name in ("pool", *NAMES):
        shutil.rmtree(root / name, ignore_errors=True)
    pool = write_pool(root / "pool", shards=3, samples=13)
    for name, bounds in _BOUNDS.items():
        filter_without_ray(recipe_of(root / name, pool, KEEP_FRACTION), bounds=bounds)
        _make_half(recipe_of(root / f"{name}{_HALF}", pool, KEEP_FRACTION), bounds)


def _make_half(recipe: Recipe, bounds: tuple[float, float]) -> None:
    """A run whose driver stops once its selection is settled."""

    def stop(number: int, when: str) -> None:
        if when == "after" and made[number].startswith("replace selection.json"):
            raise _StoppedError

    with suppress(_StoppedError), at_writes(stop) as made:
        filter_without_ray(recipe, bounds=bounds)
