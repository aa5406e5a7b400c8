"""Checks that a process may write, list, read and delete below a URI, by doing it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dfn_ray.errors import DfnRayError
from dfn_ray.storage import Store

PROBE = ".dfn_ray-doctor-"
"""Prefix of a probe's name, followed by 32 random hex digits: concurrent doctors do not collide,
and a probe left by a killed doctor is not taken for a file of a run."""
_CONTENT = b"dfn-ray doctor was here and will remove this"


@dataclass
class Probe:
    """A file that was written to check the permissions, and the problems so far."""

    name: str
    problems: list[str] = field(default_factory=list)


@contextmanager
def probing(uri: str) -> Iterator[Probe]:
    """Keeps a probe below `uri` for the block, and checks write, list, read and delete.

    After the block, `problems` holds the operations that failed. The probe and the folders made for
    it are removed.
    """
    probe = Probe(f"{PROBE}{uuid.uuid4().hex}")
    with _removing_new_folders(uri):
        written = _succeeds(probe, lambda: Store(uri).write(probe.name, _CONTENT))
        _succeeds(probe, lambda: _require_listed(Store(uri), probe.name if written else None))
        if written:
            _succeeds(probe, lambda: _require_readable(Store(uri), probe.name))
        try:
            yield probe
        finally:
            if written:
                _succeeds(probe, lambda: _delete(Store(uri), probe.name))


def check_permissions(uri: str) -> tuple[str, ...]:
    """A sentence for each of write, list, read and delete that fails below `uri`."""
    with probing(uri) as probe:
        pass
    return tuple(probe.problems)


def _succeeds(probe: Probe, step: Callable[[], None]) -> bool:
    try:
        step()
    except DfnRayError as error:
        probe.problems.append(str(error))
        return False
    return True


class _ContradictionError(DfnRayError):
    """A store contradicts itself: it does not return what was written."""


def _require_listed(store: Store, name: str | None) -> None:
    files = store.list()
    if name is not None and all(file.name != name for file in files):
        raise _ContradictionError(
            f"{store.uri}: a file that was just written is missing from the listing"
        )


def _require_readable(store: Store, name: str) -> None:
    if store.read(name) != _CONTENT:
        raise _ContradictionError(f"{store.uri_of(name)}: the bytes read differ from those written")


def _delete(store: Store, name: str) -> None:
    store.delete(name)
    if store.exists(name):
        raise _ContradictionError(
            f"{store.uri_of(name)}: still exists after it was deleted. Remove it by hand"
        )


@contextmanager
def _removing_new_folders(uri: str) -> Iterator[None]:
    """Removes the local folders on the path to `uri` that the block creates, if they are empty."""
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
