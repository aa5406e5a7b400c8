"""Shards that kill their reader, when there are more of them than are examined at a time."""

from __future__ import annotations

import pytest

from dfn_ray.config import Decode, Pool
from dfn_ray.on_ray import crashing_shards as module
from dfn_ray.on_ray.crashing_shards import find_crashing_shards
from dfn_ray.on_ray.work import Work
from dfn_ray.pool import Shard
from dfn_ray.testing.lethal import READER_KILLER

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def suspects(folder, *names: str) -> dict[str, tuple[Work, Pool]]:
    found = {}
    for name in names:
        path = folder / name
        path.write_bytes(b"no shard")
        shard = Shard(str(path), name, path.stat().st_size)
        found[name] = (Work(shard), Pool(uri=(str(path),)))
    return found


def test_too_many_killers_are_given_up_in_turn(local_ray, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_SUSPECTS", 1)
    left = suspects(tmp_path, f"0-{READER_KILLER}.tar", f"1-{READER_KILLER}.tar")
    while left:
        [(name, _)] = find_crashing_shards(left, Decode())
        del left[name]


def test_of_too_many_one_that_can_be_read_ends_the_search(local_ray, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_SUSPECTS", 2)
    left = suspects(tmp_path, "0.tar", f"1-{READER_KILLER}.tar", f"2-{READER_KILLER}.tar")
    assert not list(find_crashing_shards(left, Decode()))
