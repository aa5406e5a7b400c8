"""The stored index of a training run is used only if it has the columns and types of today."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dfn_ray.pool import listing_table
from dfn_ray.run import RunIdentity, RunKind, parquet_bytes, start_run
from dfn_ray.training.data.index import INDEX_SCHEMA
from dfn_ray.training.train_clip import INDEX, _stored_index

ROWS = [{"source": 0, "shard": 1, "first_row": 0, "rows": 9, "at": None, "samples": 9}]


@pytest.fixture
def run(tmp_path):
    return start_run(
        str(tmp_path / "run"),
        RunIdentity(kind=RunKind.TRAIN, fingerprint={}, listing=listing_table([])),
        recipe={},
    )


def store(run, table: pa.Table) -> None:
    run.write(INDEX, parquet_bytes(table, INDEX, compression="zstd"))


def test_an_index_reads_back_as_it_was_written(run):
    assert _stored_index(run) is None
    table = pa.Table.from_pylist(ROWS, INDEX_SCHEMA)
    store(run, table)
    assert _stored_index(run) == table


@pytest.mark.parametrize("name", INDEX_SCHEMA.names)
def test_an_index_with_a_column_of_another_type_or_without_it_is_made_again(run, name):
    table = pa.Table.from_pylist(ROWS, INDEX_SCHEMA)
    place = INDEX_SCHEMA.get_field_index(name)
    other = pa.large_string() if pa.types.is_string(INDEX_SCHEMA.field(name).type) else pa.float64()
    store(run, table.set_column(place, name, table[name].cast(other)))
    assert _stored_index(run) is None
    store(run, table.drop_columns([name]))
    assert _stored_index(run) is None
