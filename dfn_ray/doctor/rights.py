"""Whether a process may write, list, read and delete below a URI, by doing it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dfn_ray.errors import DfnRayError
from dfn_ray.storage import Store

PROBE = ".dfn_ray-doctor-"
"""Name of a probe, then 32 random hex digits: two doctors do not meet, and one that a killed doctor left is no run's."""
_CONTENT = b"dfn-ray doctor was here and will remove this"


@dataclass
class Probe:
    """A file that was written to try the rights, and what went wrong so far."""

    name: str
    problems: list[str] = field(default_factory=list)


@contextmanager
def probing(uri: str) -> Iterator[Probe]:
    """A probe below `uri` while the context lasts; after it `problems` says what of write, list, read, delete failed.

    Leaves nothing behind, neither the probe nor folders that it needed.
    """
    probe = Probe(f"{PROBE}{uuid.uuid4().hex}")
    with _no_new_folders(uri):
        written = _tried(probe, lambda: Store(uri).write(probe.name, _CONTENT))
        _tried(probe, lambda: _listed(Store(uri), probe.name if written else None))
        if written:
            _tried(probe, lambda: _read(Store(uri), probe.name))
        try:
            yield probe
        finally:
            if written:
                _tried(probe, lambda: _deleted(Store(uri), probe.name))


def try_rights(uri: str) -> tuple[str, ...]:
    """What of write, list, read and delete fails below `uri`, each in a sentence; nothing when all work."""
    with probing(uri) as probe:
        pass
    return tuple(probe.problems)


def _tried(probe: Probe, step: Callable[[], None]) -> bool:
    try:
        step()
    except DfnRayError as error:
        probe.problems.append(str(error))
        return False
    return True


class _ContradictionError(DfnRayError):
    """A store does not give back what it took."""


def _listed(store: Store, name: str | None) -> None:
    files = store.list()
    if name is not None and all(file.name != name for file in files):
        raise _ContradictionError(
            f"{store.uri}: a file that was just written is not in its listing"
        )


def _read(store: Store, name: str) -> None:
    if store.read(name) != _CONTENT:
        raise _ContradictionError(f"{store.uri_of(name)}: reads back other bytes than were written")


def _deleted(store: Store, name: str) -> None:
    store.delete(name)
    if store.exists(name):
        raise _ContradictionError(
            f"{store.uri_of(name)}: still there after it was deleted; remove it"
        )


@contextmanager
def _no_new_folders(uri: str) -> Iterator[None]:
    """Removes at the end the local folders on the way to `uri` that were not there at the beginning."""
    store = Store(uri)
    new: list[str] = []
    if store.is_local:
        path = store.address.partition("://")[2]
        while path and not os.path.exists(path):
            new.append(path)
            path = os.path.dirname(path)
    yield
    for path in new:
        if os.path.isdir(path) and not os.listdir(path):
            os.rmdir(path)
