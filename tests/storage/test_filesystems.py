from __future__ import annotations

import sys

import pytest
from fsspec.registry import _registry

from dfn_ray.errors import StorageError
from dfn_ray.storage import filesystem


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
    monkeypatch.delitem(_registry, uri.partition(":")[0], raising=False)
    with pytest.raises(StorageError, match=rf"{uri}: .*pip install 'dfn_ray\[{extra}\]'"):
        filesystem(uri)
