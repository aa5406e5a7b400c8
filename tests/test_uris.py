from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.uris import sayable, secret_in


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:secret@bucket/x",
        "s3://key:sec/ret@bucket/x",
        "s3://token@bucket/x",
        "https://user@host/x.tar",
        "local-dir:s3://key:secret@bucket/x",
        "abfs://container:secret@account.dfs.core.windows.net/x",
        "https://bucket.s3.amazonaws.com/x.tar?X-Amz-Signature=0f",
        "az://container/x.tar?sv=2024&sig=0f",
    ],
)
def test_credentials_in_a_uri_are_seen(uri):
    assert secret_in(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/pool/{00000..00012}.tar",
        "s3://bucket/pool/0000?.tar",
        "s3://bucket/date=2024/*.tar",
        "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/name/x",
        "http://127.0.0.1:9000/bucket/x.tar",
        "abfs://container@account.dfs.core.windows.net/x",
        "hf://datasets/org/name@main/x.tar",
        "hf-hub:apple/DFN-public",
        "/data/a@b/pool?x=1",
        "memory://x",
    ],
)
def test_other_uris_pass(uri):
    assert secret_in(uri) is None


NAMES = st.lists(
    st.one_of(
        st.sampled_from([b"\\", b"x", b"\\x", b"5c", b"e9", b"\xe9", b"\xff", "é".encode()]),
        st.binary(min_size=1, max_size=3),
    )
).map(b"".join)


@given(NAMES, NAMES)
def test_file_names_of_any_bytes_are_said_in_utf8_and_no_two_alike(one, other):
    said = [sayable(name.decode("utf-8", "surrogateescape")) for name in (one, other)]
    assert (said[0] == said[1]) == (one == other)
    assert [text.encode() for text in said]  # holds no surrogate


@given(NAMES)
def test_the_bytes_of_a_name_can_be_read_off_what_is_said(name):
    said = sayable(name.decode("utf-8", "surrogateescape"))
    parts = re.split(r"\\x([0-9a-f]{2})", said)
    parts[1::2] = [chr(int(byte, 16)) for byte in parts[1::2]]
    spelled = b"".join(
        part.encode("latin-1" if index % 2 else "utf-8") for index, part in enumerate(parts)
    )
    assert spelled == name


def test_bytes_that_are_no_utf8_are_said_in_hexadecimal_and_other_names_as_they_are():
    name = b"caf\xe9\\xe9\\xg\xc3\xa9".decode("utf-8", "surrogateescape")
    assert sayable(name) == "caf\\xe9\\x5cxe9\\xg\u00e9"
