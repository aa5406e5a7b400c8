"""Who holds a run: the driver whose attempt is the last one.

An attempt is a file of its own that is created once and never changed: attempts/000001.json, 000002, ... Whoever creates
the next one has taken the run over. Creating is atomic where the store honours conditions (see `Store.create`).
"""

from __future__ import annotations

import platform
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dfn_ray.errors import RunTakenOverError
from dfn_ray.run.layout import ATTEMPTS
from dfn_ray.run.sealed_json import json_bytes, parsed_json, read_required
from dfn_ray.run.shapes import shape_of
from dfn_ray.storage import Store


@dataclass(frozen=True)
class Attempt:
    """One driver's hold on a run. Small: it is sent along with every task that writes."""

    number: int
    token: str
    is_exclusive: bool = True
    """False on a store that takes no notice of conditions."""
    record: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Host, time, versions, recipe and listing of the attempt."""
    folder: str = ATTEMPTS
    """Where it is among others."""

    @property
    def file(self) -> str:
        """The name of its file."""
        return _file(self.folder, self.number)

    def check(self, store: Store) -> None:
        """Raise RunTakenOverError when another driver has taken the run over since."""
        # One request, which grows with nothing: whoever comes next creates this file first.
        if not store.exists(_file(self.folder, self.number + 1)):
            if self.is_exclusive or _read(store, self.folder, self.number)["token"] == self.token:
                return
            number = self.number
        else:
            number = _last_number(store, self.folder)
        taker = _read(store, self.folder, number)
        raise RunTakenOverError(
            f"{store.uri}: taken over by a driver on {taker.get('host')} at {taker.get('time')}; "
            "this one stops. Run one driver per run_uri"
        )

    def replace(self, store: Store, name: str, data: bytes, before: bytes | None) -> None:
        """Replace the version `before` of a file, None: that there is none. Raises RunTakenOverError when it is another by now."""
        self.check(store)
        done = store.replace(name, data, before=before)
        self.check(store)  # also where the other driver wrote the same
        if not done:
            raise RunTakenOverError(
                f"{store.uri_of(name)}: another driver has changed it; this one stops. Run one driver per run_uri"
            )


def create_attempt(store: Store, record: Mapping[str, Any], folder: str = ATTEMPTS) -> Attempt:
    """Take a run over: create its next attempt, with a record of what this driver is."""
    token = uuid.uuid4().hex
    value = {**record, "token": token, "host": platform.node()}
    number = _last_number(store, folder)
    while True:
        number += 1
        if store.create(_file(folder, number), json_bytes(value)):
            break
    return Attempt(number, token, store.honours_conditions(_file(folder, number)), value, folder)


def last_attempt(store: Store) -> Attempt | None:
    """The last attempt at a run, to read what it recorded; None before the first. Raises DamagedRunError."""
    number = _last_number(store, ATTEMPTS)
    if not number:
        return None
    record = _read(store, ATTEMPTS, number)
    return Attempt(number, record["token"], record=record)


def require_attempts(store: Store) -> None:
    """Raise DamagedRunError unless every attempt at a run, from the first to the last, is there and whole."""
    last = _last_number(store, ATTEMPTS)
    for number in range(1, max(1, last) + 1):
        _read(store, ATTEMPTS, number)


def _file(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}.json"


def _last_number(store: Store, folder: str) -> int:
    stems = [file.name.removesuffix(".json") for file in store.list(folder, suffix=".json")]
    return max((int(stem) for stem in stems if stem.isdecimal()), default=0)


def _read(store: Store, folder: str, number: int) -> dict[str, Any]:
    where = store.uri_of(_file(folder, number))
    data = read_required(store, _file(folder, number))
    return parsed_json(data, where, require_digest=True, shape=shape_of(ATTEMPTS))
