from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.cli import run
from dfn_ray.config import Pool, recipe_from
from dfn_ray.errors import InputError
from dfn_ray.uris import normalised, secret_in, uri_argument, utf8_safe


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
        "https://host/x.tar?token=0f",
        "https://host/x.tar?v=1&access_token=0f",
        "https://host/x.tar?AWSAccessKeyId=0f",
        "https://host/x.tar?Policy=a&Signature=0f&Key-Pair-Id=b",
        "https://host/x.tar?X%2DAmz%2DCredential=0f",
        "https://host:8080?api_key=0f",
        "https://host/x.tar#access_token=0f",
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
        "https://host/x.tar?download=true",
        "https://host/x.tar?versionId=3&monkey=1",
        "s3://bucket/lang=en&year=2020.tar",
        "s3://bucket/token=1/x.tar",
        "https://host/x.tar?token=",
        "memory://x",
    ],
)
def test_other_uris_pass(uri):
    assert secret_in(uri) is None


def test_a_secret_on_a_command_line_is_refused_by_the_name_of_its_parameter_and_never_repeated():
    for uri, name in [
        ("https://host/pool.tar?X-Amz-Signature=hunter2", "the parameter X-Amz-Signature"),
        ("s3://me:hunter2@bucket/run", "a user or password"),
    ]:
        with pytest.raises(InputError, match=rf"contains {name}.*in the environment") as refusal:
            uri_argument(uri)
        assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("S3://Bucket/Key", "s3://Bucket/Key"),
        ("HTTPS://Host/x?A=B", "https://Host/x?A=B"),
        ("local-dir:S3://b/x", "local-dir:s3://b/x"),
        ("/data/A://b", "/data/A://b"),
        ("C", "C"),
    ],
)
def test_schemes_are_spelled_in_one_way_and_nothing_else_is_touched(written, meant):
    assert normalised(written) == uri_argument(written) == meant


def test_a_recipe_spells_schemes_in_one_way():
    assert recipe_from({"uri": ["S3://b/{0..3}.tar"]}, kind=Pool) == Pool(
        uri=("s3://b/{0..3}.tar",)
    )


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "{}"],
        ["verify", "{}"],
        ["export", "{}", "out"],
        ["export", "run", "{}"],
        ["materialize", "r.toml", "--out", "{}"],
        ["filter", "{}"],
        ["compare", "{}"],
    ],
)
def test_every_verb_refuses_a_uri_with_a_secret_before_it_does_anything(words, capsys):
    secret = "https://host/pool.tar?X-Amz-Signature=hunter2"
    assert run([word.format(secret) for word in words]) == 2
    said = capsys.readouterr().err
    assert "contains the parameter X-Amz-Signature" in said
    assert "hunter2" not in said


NAMES = st.lists(
    st.one_of(
        st.sampled_from([b"\\", b"x", b"\\x", b"5c", b"e9", b"\xe9", b"\xff", "é".encode()]),
        st.binary(min_size=1, max_size=3),
    )
).map(b"".join)


@given(NAMES, NAMES)
def test_file_names_of_any_bytes_are_said_in_utf8_and_no_two_alike(one, other):
    said = [utf8_safe(name.decode("utf-8", "surrogateescape")) for name in (one, other)]
    assert (said[0] == said[1]) == (one == other)
    assert [text.encode() for text in said]  # holds no surrogate


@given(NAMES)
def test_the_bytes_of_a_name_can_be_read_off_what_is_said(name):
    said = utf8_safe(name.decode("utf-8", "surrogateescape"))
    parts = re.split(r"\\x([0-9a-f]{2})", said)
    parts[1::2] = [chr(int(byte, 16)) for byte in parts[1::2]]
    spelled = b"".join(
        part.encode("latin-1" if index % 2 else "utf-8") for index, part in enumerate(parts)
    )
    assert spelled == name


def test_bytes_that_are_no_utf8_are_said_in_hexadecimal_and_other_names_as_they_are():
    name = b"caf\xe9\\xe9\\xg\xc3\xa9".decode("utf-8", "surrogateescape")
    assert utf8_safe(name) == "caf\\xe9\\x5cxe9\\xg\u00e9"
