"""The chains as Ray Data plans them."""

from __future__ import annotations

import pytest

from dfn_ray.config import Decode, Pool
from dfn_ray.on_ray.datasets import Work, ignore_retry_deprecation, read_pool, stage_arguments
from dfn_ray.pool import Shard

pytestmark = pytest.mark.ray


@pytest.mark.parametrize(
    "decode",
    [Decode(), Decode(cpus=0.5, labels={"dfn-role": "decode"}, resources={"slot": 1})],
    ids=["anywhere", "placed"],
)
def test_reading_and_decoding_are_one_task_wherever_they_run(local_ray, capsys, decode):
    work = [Work(Shard(uri="0.tar", name="0.tar", size_bytes=1))]
    with ignore_retry_deprecation():
        read_pool(work, Pool(uri=("0.tar",)), decode).map_batches(
            **stage_arguments(lambda cell: cell, decode)
        ).explain()
    physical = capsys.readouterr().out.lower().rpartition("physical")[2]
    assert "read_itemsource->mapbatches" in physical.replace(" ", "")
