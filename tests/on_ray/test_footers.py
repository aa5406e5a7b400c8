"""Footers read in Ray tasks: the same parts in the same order, and the same errors."""

from __future__ import annotations

from functools import partial

import pytest

from dfn_ray.errors import DamagedRunError
from dfn_ray.on_ray.footers import read_many_parts
from dfn_ray.run import open_run, part_file, part_names, read_parts, scan_ledger

in_tasks = partial(read_many_parts, slice_items=2, least_items=1)


@pytest.fixture
def run(finished):
    return open_run(finished.run_uri)


def test_footers_read_in_tasks_are_those_read_in_this_process_in_order(run, local_ray):
    for names in (part_names(run.store), part_names(run.store)[::-1]):
        assert len(names) > 4
        parts = list(in_tasks(run.store, names))
        assert [part.name for part in parts] == names
        assert parts == list(read_parts(run.store, names))


def test_the_ledger_is_the_same_however_its_footers_are_read(run, local_ray):
    ours = scan_ledger(run.store, run.fingerprint, read=in_tasks)
    theirs = scan_ledger(run.store, run.fingerprint)
    assert (ours.names, ours.counts, ours.samples) == (theirs.names, theirs.counts, theirs.samples)
    assert ours.complete_shards == theirs.complete_shards == 6


def test_a_damaged_footer_is_the_same_error_from_a_task(run, local_ray):
    name = part_names(run.store)[3]
    run.store.write(part_file(name), b"PAR1")
    with pytest.raises(DamagedRunError, match=name):
        list(in_tasks(run.store, part_names(run.store)))
