from __future__ import annotations

import sys

import pytest

from dfn_ray.errors import StorageError
from dfn_ray.storage import Store, filesystem, read_uri


@pytest.mark.parametrize(
    ("uri", "package", "extra"),
    [
        ("gs://bucket/pool", "gcsfs", "gcs"),
        ("az://container/pool", "adlfs", "azure"),
        ("abfs://container/pool", "adlfs", "azure"),
        ("hf://datasets/org/pool", "huggingface_hub", "hf"),
    ],
)
def test_a_scheme_whose_package_is_absent_names_the_extra_to_install(
    uri, package, extra, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StorageError, match=rf"{uri}: .*pip install 'dfn_ray\[{extra}\]'"):
        filesystem(uri)


@pytest.mark.parametrize(
    "uri",
    ["s3://AKIA1:hunter2secret@bucket/run", "https://host/pool.tar?X-Amz-Signature=hunter2secret"],
)
def test_a_uri_with_credentials_is_refused_without_repeating_them(uri):
    for use in (filesystem, read_uri, lambda uri: Store(uri).exists("run.json")):
        with pytest.raises(StorageError, match="by the environment") as refusal:
            use(uri)
        assert "hunter2" not in str(refusal.value)
