"""Imports that cannot be interrupted, for the worker processes of Ray.

Ray cancels a task by a KeyboardInterrupt in its process, at whatever line that is, and gives the
same process the next task. A task in a fresh process imports for seconds. If torch, numpy and
others are interrupted in that, the same process cannot import them again ("an object with that name
is already defined"), and every later task there fails. So an interrupt during an import is ignored,
and the cancelled task runs to its end for nothing, one shard at most. Raising the interrupt later
could hit the next task.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


def guard_workers() -> None:
    """Guards the imports of this process if it is one of Ray's workers."""
    is_worker = Path(sys.argv[0]).name == "default_worker.py" if sys.argv else False
    if is_worker and not any(isinstance(finder, _ImportGuard) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ImportGuard())


class _ImportGuard(MetaPathFinder):
    """Finds modules by the other finders, and blocks interrupts while the main thread runs them.

    That covers everything these modules import themselves.
    """

    def __init__(self) -> None:
        self.is_importing = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self.is_importing or threading.current_thread() is not threading.main_thread():
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _InterruptFreeLoader(spec.loader, self)
        return spec


class _InterruptFreeLoader(Loader):
    """Wraps another loader and ignores interrupts while a module runs."""

    def __init__(self, loader: Any, guard: _ImportGuard) -> None:
        self._loader, self._guard = loader, guard

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module must see its original loader: some read files through it.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._guard.is_importing = True
        try:
            with _no_interrupts():
                self._loader.exec_module(module)
        finally:
            self._guard.is_importing = False


@contextmanager
def _no_interrupts() -> Iterator[None]:
    own = signal.getsignal(signal.SIGINT)
    if own is None:  # not set by Python: it could not be put back
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, own)
