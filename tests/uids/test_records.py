from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.errors import InputError
from dfn_ray.uids.records import UID_DTYPE, first_unsorted, npy_header, uid_records, uid_strings

uids = st.lists(st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}"), max_size=20)


@given(uids)
def test_uids_become_datacomps_records_and_come_back(values):
    records = uid_records(pa.array(values, pa.string()))
    # DataComp's own formula, apply_filter.py
    assert records.tolist() == [(int(uid[:16], 16), int(uid[16:32], 16)) for uid in values]
    assert uid_strings(records).to_pylist() == values


@given(uids, st.integers(0, 5))
def test_uids_of_a_sliced_column_are_those_of_the_slice(values, start):
    column = pa.array(values, pa.string())[start:]
    assert uid_strings(uid_records(column)).to_pylist() == values[start:]


@pytest.mark.parametrize("wrong", ["", "abc", "g" * 32, "A" * 32, "0" * 33, None])
def test_anything_but_32_lower_case_hex_digits_is_refused(wrong):
    with pytest.raises(InputError, match="32"):
        uid_records(pa.array(["0" * 32, wrong], pa.string()))


@pytest.mark.parametrize("wrong", ["g" * 32, "A" * 32, None])
def test_the_first_wrong_uid_is_named_with_its_row(wrong):
    column = pa.array(["1" * 32, "0" * 32, wrong, "G" * 32], pa.string())[1:]
    with pytest.raises(InputError, match=f"got {wrong!r} in row 1$"):
        uid_records(column)


def test_a_npy_header_and_records_are_read_by_numpy():
    records = np.array([(1, 2), (3, 4)], dtype=UID_DTYPE)
    loaded = np.load(io.BytesIO(npy_header(2) + records.tobytes()))
    assert loaded.dtype == UID_DTYPE
    assert loaded.tolist() == [(1, 2), (3, 4)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8))
def test_first_unsorted_finds_the_first_step_down(pairs):
    records = np.array(pairs, dtype=UID_DTYPE)
    down = [i for i in range(1, len(pairs)) if pairs[i] < pairs[i - 1]]
    assert first_unsorted(records) == (down[0] if down else None)
