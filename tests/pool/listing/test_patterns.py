from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfn_ray.errors import InputError
from dfn_ray.pool.listing.patterns import Glob, expand_braces, split_fixed


@pytest.mark.parametrize(
    ("pattern", "uris"),
    [
        ("s3://b/a.tar", ["s3://b/a.tar"]),
        ("p/{08..11}.tar", ["p/08.tar", "p/09.tar", "p/10.tar", "p/11.tar"]),
        ("p/{9..11}", ["p/9", "p/10", "p/11"]),
        ("p/{a,b}/{0..1}.tar", ["p/a/0.tar", "p/a/1.tar", "p/b/0.tar", "p/b/1.tar"]),
        ("p/{a,x{0..1}}.tar", ["p/a.tar", "p/x0.tar", "p/x1.tar"]),
        ("p{,-two}", ["p", "p-two"]),
        ("{0..0003}", ["0000", "0001", "0002", "0003"]),
        ("{8..010}", ["008", "009", "010"]),
        ("{6..0..2}", ["6", "4", "2", "0"]),
        ("{-1..1}", ["-1", "0", "1"]),
        ("{a..e..2}", ["a", "c", "e"]),
        ("{{a,b}}", ["{a}", "{b}"]),
        ("p/{x}.tar", ["p/{x}.tar"]),
    ],
)
def test_braces_expand_as_in_a_shell(pattern, uris):
    assert expand_braces(pattern) == uris


@pytest.mark.parametrize("pattern", ["p/{0..1.tar", "p/}{", "p/{0..99999999999}"])
def test_braces_that_cannot_be_meant_are_refused(pattern):
    with pytest.raises(InputError, match=r"pool\.uri"):
        expand_braces(pattern)


NUMBERS = st.builds(
    lambda number, width: f"{number:0{width}d}", st.integers(-30, 130), st.integers(1, 5)
)
LOWER, UPPER = st.sampled_from("abcdxyz"), st.sampled_from("ABCXYZ")
STEPS = st.one_of(st.just(""), st.integers(-4, 9).map(lambda step: f"..{step}"))
RANGES = st.builds(
    lambda ends, step: f"{{{ends[0]}..{ends[1]}{step}}}",
    st.one_of(*(st.tuples(ends, ends) for ends in (NUMBERS, LOWER, UPPER))),
    STEPS,
)
PATTERNS = st.recursive(
    st.one_of(RANGES, st.sampled_from(["x", "-0", "{y}"])),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"{{{','.join(parts)}}}"),
        st.tuples(inner, inner).map("".join),
    ),
    max_leaves=3,
)


@pytest.mark.skipif(shutil.which("bash") is None, reason="compares with bash")
def test_braces_stand_for_what_bash_makes_of_them():
    @settings(max_examples=8, deadline=None)
    @given(st.lists(PATTERNS, min_size=30, max_size=30))
    def check(patterns):
        script = "\n".join(f"printf '%s ' {pattern}; echo" for pattern in patterns)
        lines = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        for pattern, line in zip(patterns, lines.stdout.splitlines(), strict=True):
            assert expand_braces(pattern) == line.split(), pattern

    check()


@pytest.mark.parametrize(
    ("pattern", "existing", "parts"),
    [
        ("s3://b/pool/{0..9}.tar", "", ("s3://b/pool", "{0..9}.tar")),
        ("s3://b/pool-*/x/0.tar", "", ("s3://b", "pool-*/x/0.tar")),
        ("/data/pool/a.tar", "", ("/data/pool/a.tar", "")),
        ("/d/br[1]ack/x/*.tar", "/d/br[1]ack", ("/d/br[1]ack/x", "*.tar")),
        ("/d/br[1]ack", "/d/br[1]ack", ("/d/br[1]ack", "")),
        ("/d/br[1]ack", "", ("/d", "br[1]ack")),
        ("https://h/x/0.tar?download=true", "", ("https://h/x/0.tar?download=true", "")),
        ("https://h/x/{0..1}.tar?in=a/b", "", ("https://h/x", "{0..1}.tar?in=a/b")),
        ("s3://b/x/0?.tar", "", ("s3://b/x", "0?.tar")),
    ],
)
def test_a_pattern_begins_where_something_varies_that_does_not_exist_as_written(
    pattern, existing, parts
):
    assert split_fixed(pattern, lambda path: path == existing) == parts


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("**", "a/b/c.tar", True),
        ("**", "a/.b/c.tar", False),
        ("**", "_a/c.tar", False),
        ("**", "a/.c.tar", False),
        ("*/c.tar", ".a/c.tar", False),
        (".a*/c.tar", ".abc/c.tar", True),
        ("[._]a/c.tar", "_a/c.tar", False),
        ("**/_a/*.tar", "x/y/_a/c.tar", True),
        ("**/_a/*.tar", "x/_b/_a/c.tar", False),
        ("a/**/c.tar", "a/c.tar", True),
        ("a/**/c.tar", "a/b/b/c.tar", True),
        ("**/**/c.tar", "c.tar", True),
        ("a/*", "a/b/c.tar", False),
        ("a?c/[[]1]*.tar", "abc/[1].tar", True),
        ("*.tar", "_c.tar", True),
        (".c.tar*", ".c.tar", True),
    ],
)
def test_globs_match_name_by_name_and_hidden_names_only_by_names_that_begin_so(glob, path, matches):
    assert Glob(glob).matches(path) is matches


def test_two_stars_within_a_name_are_refused():
    with pytest.raises(InputError, match=r"must be alone between slashes, got x/a\*\*\.tar"):
        Glob("x/a**.tar")
