from __future__ import annotations

import pytest

from dfn_ray.uris import secret_in


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
