from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.pool import derive_uid
from dfn_ray.uids.derived import own_uid

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def test_derived_uids_never_change():
    assert (
        derive_uid("00000.tar", "000000012") == "f87e3d0eca767cca0f77c270ac14e70e"
    )  # b2sum -l 128


@given(NAMES, NAMES)
def test_a_derived_uid_is_32_lower_case_hex_digits_that_a_sample_may_bring(name, key):
    uid = derive_uid(name, key)
    assert own_uid(uid) == uid
    assert f"{int(uid[:16], 16):016x}{int(uid[16:], 16):016x}" == uid


@given(st.tuples(NAMES, NAMES), st.tuples(NAMES, NAMES))
def test_other_names_or_keys_give_other_uids(one, other):
    assert (derive_uid(*one) == derive_uid(*other)) == (one == other)


@given(st.binary(min_size=16, max_size=16))
def test_upper_case_uids_are_normalised(digest):
    assert own_uid(digest.hex().upper()) == digest.hex()


def test_anything_but_32_hex_digits_is_no_uid():
    uid = hashlib.md5(b"", usedforsecurity=False).hexdigest()
    for value in (
        None,
        7,
        "",
        uid[:-1],
        uid + "0",
        uid[:-1] + "g",
        f" {uid[2:]} ",
        uid + "\n",
        [uid],
    ):
        assert own_uid(value) is None
