"""Attempts: the driver of the last attempt holds the run.

An attempt is a file that is created once and never changed: attempts/000001.json, 000002, ... The
driver that creates the next one has taken the run over. Creation is atomic if the store honours
conditions (see `Store.create`).
"""

from __future__ import annotations

import platform
import time
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
    """One driver's hold on a run. Small: it is sent with every task that writes."""

    number: int
    token: str
    is_exclusive: bool = True
    """False on a store that ignores conditions."""
    record: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Host, time, versions, recipe and listing of the attempt."""
    folder: str = ATTEMPTS
    """Folder of this and the other attempts."""

    @property
    def file(self) -> str:
        """The name of its file."""
        return _file(self.folder, self.number)

    def check(self, store: Store) -> None:
        """Raises RunTakenOverError if another driver has taken the run over."""
        # One request, whatever the number of attempts: the next driver creates this file first.
        if not store.exists(_file(self.folder, self.number + 1)):
            if self.is_exclusive or _read(store, self.folder, self.number)["token"] == self.token:
                return
            number = self.number
        else:
            number = _last_number(store, self.folder)
        taker = _read(store, self.folder, number)
        raise RunTakenOverError(
            f"{store.uri}: was taken over by a driver on {taker.get('host')} at "
            f"{taker.get('time')}; this one stops. Run one driver per run_uri"
        )

    def replace(self, store: Store, name: str, data: bytes, before: bytes | None) -> None:
        """Replaces a file if its current version is `before`; None: if it does not exist.

        Raises RunTakenOverError for any other version.
        """
        self.check(store)
        done = store.replace(name, data, before=before)
        self.check(store)  # again, because the other driver may have written the same content
        if not done:
            raise RunTakenOverError(
                f"{store.uri_of(name)}: another driver has changed it; this one stops. Run one "
                "driver per run_uri"
            )

    def rewrite(self, store: Store, name: str, data: bytes) -> None:
        """Writes a file, or replaces the version of it that exists now.

        Raises RunTakenOverError if another driver holds the run, or writes the file meanwhile.
        """
        before = store.read(name) if store.exists(name) else None
        self.replace(store, name, data, before)


def create_attempt(store: Store, record: Mapping[str, Any], folder: str = ATTEMPTS) -> Attempt:
    """Creates the next attempt of a run, which takes it over; `record` describes this driver."""
    token = uuid.uuid4().hex
    value = {**record, "token": token, "host": platform.node(), "time": now()}
    number = _last_number(store, folder)
    while True:
        number += 1
        if store.create(_file(folder, number), json_bytes(value)):
            break
    return Attempt(number, token, store.honours_conditions(_file(folder, number)), value, folder)


def last_attempt(store: Store) -> Attempt | None:
    """The last attempt of a run with its record; None before the first. Raises DamagedRunError."""
    number = _last_number(store, ATTEMPTS)
    if not number:
        return None
    record = _read(store, ATTEMPTS, number)
    return Attempt(number, record["token"], record=record)


def require_attempts(store: Store) -> None:
    """Raises DamagedRunError unless all attempts of a run, up to the last, exist undamaged."""
    last = _last_number(store, ATTEMPTS)
    for number in range(1, max(1, last) + 1):
        _read(store, ATTEMPTS, number)


def now() -> str:
    """The time for records: UTC, `2026-01-31T23:59:59Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _file(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}.json"


def _last_number(store: Store, folder: str) -> int:
    stems = [file.name.removesuffix(".json") for file in store.list(folder, suffix=".json")]
    return max((int(stem) for stem in stems if stem.isdecimal()), default=0)


def _read(store: Store, folder: str, number: int) -> dict[str, Any]:
    where = store.uri_of(_file(folder, number))
    data = read_required(store, _file(folder, number))
    return parsed_json(data, where, require_digest=True, shape=shape_of(ATTEMPTS))
