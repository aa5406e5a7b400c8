"""JSON and TOML of others is accepted up to one depth and rejected beyond, from any stack."""

from __future__ import annotations

import json
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.config import Pool, Rules, recipe_from
from dfn_ray.config.load import parse_recipe
from dfn_ray.errors import DamagedRunError, InputError, RecipeError
from dfn_ray.network.open_clip_config import read_network_config
from dfn_ray.pool.captions import TEXT
from dfn_ray.pool.samples import Draft
from dfn_ray.preparing.rules import SizeRule
from dfn_ray.run.sealed_json import json_bytes, parsed_json
from dfn_ray.schema import Reason
from dfn_ray.untrusted.json_text import (
    MAX_DEPTH,
    MAX_OWN_DEPTH,
    TooDeepError,
    parse_json,
    require_shallow,
    require_shallow_toml,
)

FRAMES = 600
"""More than any caller uses; Python allows 1,000."""


def below(frames: int, call: Callable[[], Any]) -> Any:
    """The result of a call with that many more frames on the stack."""
    return call() if frames == 0 else below(frames - 1, call)


def anywhere(call: Callable[[], Any]) -> Any:
    """The result of a call, the same from a shallow and from a deep stack."""
    assert sys.getrecursionlimit() == 1000
    shallow = call()
    assert below(FRAMES, call) == shallow
    return shallow


def nested(depth: int, inside: Any = 1) -> Any:
    """A value within that many lists and objects."""
    for level in range(depth):
        inside = [inside] if level % 2 else {"a": inside}
    return inside


def row_of(sidecar: bytes) -> tuple[Any, ...]:
    draft = Draft(
        row=0, key="a", images=1, image_size=1, image=b"i", captions={TEXT: b"c"}, caption_size=1
    )
    draft.json, draft.json_size = sidecar, len(sidecar)
    return draft.finish(Pool(uri=("x",)), "0.tar")


@pytest.mark.parametrize(("depth", "reason"), [(MAX_DEPTH, None), (MAX_DEPTH + 1, "broken_json")])
@pytest.mark.parametrize("extra", [{}, {"nan": float("nan")}, {"half": "\ud800"}])
def test_a_sidecar_is_taken_up_to_one_depth_whatever_else_is_in_it(depth, reason, extra):
    value = {"original_width": 9, "original_height": 9, "deep": nested(depth - 1), **extra}
    sidecar = json.dumps(value).encode()
    row = anywhere(lambda: row_of(sidecar))
    assert row[7] == reason
    assert (row[5] is None) is (reason is not None)


def test_the_deepest_metadata_can_be_judged_by_the_rules():
    value = {"original_width": 9, "original_height": 9, "deep": nested(MAX_DEPTH - 1)}
    metadata = row_of(json.dumps(value).encode())[5]
    rule = SizeRule(Rules(min_image_side=10), [metadata])
    assert anywhere(lambda: rule(0, 100, 100)) == Reason.IMAGE_SIDE


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 400, 5000])
def test_captions_in_lists_are_refused_beyond_it_as_all_metadata(depth):
    text = f'{{"caption": {"[" * (depth - 1)}"a"{"]" * (depth - 1)}}}'.encode()
    assert anywhere(lambda: row_of(text)[7]) == Reason.BROKEN_JSON


def test_recipes_are_refused_beyond_it_and_judged_up_to_it():
    def mistake(call: Callable[[], Any]) -> str:
        def told() -> str:
            with pytest.raises(RecipeError) as error:
                call()
            return str(error.value)

        return anywhere(told)

    brackets = {depth: f"{'[' * depth}{']' * depth}" for depth in (MAX_DEPTH - 1, MAX_DEPTH + 1)}
    dots = {depth: ".".join("a" * depth) for depth in brackets}
    for depth, too_deep in ((MAX_DEPTH - 1, False), (MAX_DEPTH + 1, True)):
        for toml in (f"x = {brackets[depth]}", f"{dots[depth]} = 1", f"[{dots[depth]}]"):
            said = mistake(lambda toml=toml: parse_recipe(toml.encode(), source="t"))
            assert ("nested too deeply" in said) is too_deep, toml
        for override in (f"x={brackets[depth]}", f"{dots[depth]}=1"):
            said = mistake(lambda override=override: recipe_from({}, [override]))
            assert ("nested too deeply" in said) is too_deep, override
        said = mistake(lambda depth=depth: recipe_from({"x": nested(depth - 1)}))
        assert ("nested too deeply" in said) is too_deep


def test_network_configs_are_refused_beyond_it(tmp_path):
    path = tmp_path / "open_clip_config.json"

    def told() -> str:
        with pytest.raises(InputError) as error:
            read_network_config(path)
        return str(error.value)

    for depth in (MAX_DEPTH, MAX_DEPTH + 1):
        path.write_text(json.dumps({"model_cfg": nested(depth - 1)}))
        assert ("nested too deeply" in anywhere(told)) is (depth > MAX_DEPTH)


def test_files_of_a_run_hold_what_others_wrote_at_its_deepest():
    data = json_bytes({"fingerprint": {"networks": {"dfn": nested(MAX_DEPTH)}}})
    assert anywhere(lambda: parsed_json(data, "run.json", require_digest=True))["fingerprint"]
    deep = json.dumps(nested(MAX_OWN_DEPTH + 1)).encode()
    with pytest.raises(DamagedRunError, match="nested too deeply"):
        parsed_json(deep, "run.json", require_digest=True)


VALUES = st.recursive(
    st.none() | st.integers() | st.text(alphabet="ab[]{}\"\\#'\n"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\a'), inner),
    max_leaves=20,
)


def depth_of(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(map(depth_of, inner), default=0) if isinstance(inner, list) else 0


@given(value=VALUES, around=st.integers(MAX_DEPTH - 3, MAX_DEPTH + 1), ascii_only=st.booleans())
def test_only_brackets_outside_strings_count(value, around, ascii_only):
    deep = [nested(around, value), value]
    text = json.dumps(deep, ensure_ascii=ascii_only)
    fits = depth_of(deep) <= MAX_DEPTH
    try:
        assert parse_json(text) == deep
        require_shallow(deep)
        assert fits
    except TooDeepError:
        assert not fits
        with pytest.raises(TooDeepError):
            require_shallow(deep)


@pytest.mark.parametrize(
    "quoted",
    [
        '"{}"', "'{}'", '"""{}\n"""', "'''{}\n'''", '"""a""""', "'''a''''", '"""a"" {} \\" """',
        '"\\"{}"', '"\\\\"', '1 # "{}',
    ],
)  # fmt: skip
def test_in_toml_neither_strings_nor_comments_count(quoted):
    inside = quoted.format("[{" * MAX_DEPTH) if "{}" in quoted else quoted
    toml = f"a = {inside}\nb = {'[' * 60}{']' * 60}\nc = {'[' * 60}{']' * 60}"
    tomllib.loads(toml)
    require_shallow_toml(toml)
    with pytest.raises(TooDeepError):
        require_shallow_toml(f"a = {inside}\nb = {'[' * (MAX_DEPTH + 1)}")


@pytest.mark.parametrize("piece", ['\\"', '"', '"\\', "[]", '["', "'''a", '"""a', "''", "\\"])
def test_the_depth_of_any_text_is_known_in_linear_time(piece):
    text = "[]" * MAX_DEPTH + piece * (2**20 // len(piece))
    begin = time.process_time()
    for check in (parse_json, require_shallow_toml):
        with suppress(ValueError):
            check(text)
    assert time.process_time() - begin < 5
