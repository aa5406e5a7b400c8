"""The chains as Ray Data plans them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from ray.data import Dataset

from dfn_ray.config import Decode, Execution, Pool, Scorers
from dfn_ray.evaluation import chain as evaluation
from dfn_ray.filtering import chain as filtering
from dfn_ray.filtering.scoring.bounds import EVERYTHING
from dfn_ray.on_ray.work import Work
from dfn_ray.pool import Shard

pytestmark = pytest.mark.ray
SHARD, POOL = Shard(uri="0.tar", name="0.tar", size_bytes=1), Pool(uri=("0.tar",))


class Unchanged:
    """A committer that returns its block."""

    bounds = EVERYTHING

    def __init__(self, **_):
        pass

    def __call__(self, block):
        return block


def keep(decode: Decode, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(filtering, "_committed_parts", lambda parts: iter([parts]))
    (parts,) = filtering.keep_stream(
        [Work(SHARD)],
        pool=POOL,
        decode=decode,
        stage=replace,
        committer=Unchanged(),
        execution=Execution(),
    )
    return parts


def embed(decode: Decode, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(evaluation, "_embedded", lambda prepared, *_: prepared)
    located = SimpleNamespace(shards=[SHARD], pool=POOL)
    recipe = SimpleNamespace(decode=decode, scorers=Scorers(), no_progress_timeout_s=60)
    return evaluation.embed_set(located, prepare=replace, network=None, recipe=recipe)


@pytest.mark.parametrize("chain", [keep, embed])
@pytest.mark.parametrize(
    "decode",
    [Decode(), Decode(cpus=0.5, labels={"dfn-role": "decode"}, resources={"slot": 1})],
    ids=["anywhere", "placed"],
)
def test_reading_and_decoding_are_one_task_wherever_they_run(
    local_ray, capsys, monkeypatch, decode, chain
):
    chain(decode, monkeypatch).explain()
    physical = capsys.readouterr().out.lower().rpartition("physical")[2]
    assert "read_itemsource->mapbatches" in physical.replace(" ", "")
