from __future__ import annotations

import pytest

from dfn_ray.errors import InputError
from dfn_ray.pool.patterns import expand_braces, fixed_prefix


@pytest.mark.parametrize(
    ("pattern", "uris"),
    [
        ("s3://b/a.tar", ["s3://b/a.tar"]),
        ("p/{08..11}.tar", ["p/08.tar", "p/09.tar", "p/10.tar", "p/11.tar"]),
        ("p/{9..11}", ["p/9", "p/10", "p/11"]),
        ("p/{a,b}/{0..1}.tar", ["p/a/0.tar", "p/a/1.tar", "p/b/0.tar", "p/b/1.tar"]),
        ("p/{a,x{0..1}}.tar", ["p/a.tar", "p/x0.tar", "p/x1.tar"]),
        ("p{,-two}", ["p", "p-two"]),
        ("p/{x}.tar", ["p/{x}.tar"]),
    ],
)
def test_braces_expand_as_in_a_shell(pattern, uris):
    assert expand_braces(pattern) == uris


@pytest.mark.parametrize("pattern", ["p/{0..1.tar", "p/}{", "p/{3..1}", "p/{0..99999999999}"])
def test_braces_that_cannot_be_meant_are_refused(pattern):
    with pytest.raises(InputError, match=r"pool\.uri"):
        expand_braces(pattern)


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("s3://b/pool/{0..9}.tar", "s3://b/pool"),
        ("s3://b/pool-*/x/0.tar", "s3://b"),
        ("/data/pool/a.tar", "/data/pool"),
    ],
)
def test_the_fixed_prefix_is_the_folder_before_anything_varies(pattern, prefix):
    assert fixed_prefix(pattern) == prefix
