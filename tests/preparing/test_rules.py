"""Rules as a contributor adds them: each takes effect by itself, and its reason has a status."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest

from dfn_ray import schema
from dfn_ray.config import Captions, Decode, Rules
from dfn_ray.on_ray.cells import Cell
from dfn_ray.preparing import prepare as prepare_module
from dfn_ray.preparing import several_captions
from dfn_ray.preparing.prepare import Preparation, prepare
from dfn_ray.preparing.rules import reject_caption
from dfn_ray.schema import SEVERAL_CAPTIONS_SCHEMA, Reason
from tests.images.test_decode import TRANSFORM
from tests.network.conftest import encoded, photo
from tests.preparing.test_prepare import cell_of

REJECTING: dict[str, Any] = {
    "min_caption_words": 3,
    "min_caption_chars": 10,
    "min_image_side": 49,
    "max_aspect_ratio": 1.3,
}
"""A value of every setting that rejects "a caption" with a picture of 64 x 48 pixels."""


def judged(rules: Rules) -> list[tuple[str | None, str | None]]:
    """Status and reason of a sample with one caption, and of one with a list of it."""
    cell = cell_of([encoded(photo(64, 48), "JPEG")])
    texts = [[["a caption"]] if field.name == "text" else cell.samples[field.name].to_pylist()
             for field in SEVERAL_CAPTIONS_SCHEMA]  # fmt: skip
    columns = dict(zip(SEVERAL_CAPTIONS_SCHEMA.names, texts, strict=True))
    several = cell.samples.from_pydict(columns, SEVERAL_CAPTIONS_SCHEMA)
    preparation = Preparation(rules, Decode(), (TRANSFORM,), (), Captions())
    found = []
    for samples in (cell.samples, several):
        done = prepare(Cell(chunk=cell.chunk, samples=samples), preparation=preparation).samples
        found.append((done["status"][0].as_py(), done["reason"][0].as_py()))
    return found


def test_every_setting_of_rules_rejects_by_itself_with_a_reason_of_its_own():
    assert set(REJECTING) == {field.name for field in fields(Rules)}
    assert judged(Rules()) == [(None, None)] * 2
    reasons = set()
    for setting, value in REJECTING.items():
        one, listed = judged(Rules(**{setting: value}))
        assert one == listed
        assert one[0] == "rejected", setting
        reasons.add(one[1])
    assert len(reasons) == len(REJECTING)


def test_a_sample_at_the_limit_of_every_setting_is_accepted():
    limits = {
        "min_caption_words": 2,
        "min_caption_chars": 9,
        "min_image_side": 48,
        "max_aspect_ratio": 64 / 48,
    }
    assert limits.keys() == REJECTING.keys()
    assert judged(Rules(**limits)) == [(None, None)] * 2


def test_a_rule_that_is_added_to_the_check_of_captions_runs_whatever_the_other_settings(
    monkeypatch,
):
    def with_a_new_rule(text: str, rules: Rules) -> Reason | None:
        return Reason.NOT_LISTED if text == "a caption" else reject_caption(text, rules)

    for module in (prepare_module, several_captions):
        monkeypatch.setattr(module, "reject_caption", with_a_new_rule)
    assert judged(Rules()) == [("rejected", "not_listed")] * 2


def test_a_new_reason_cannot_be_added_without_its_status():
    source = inspect.getsource(Reason)
    place = "    # rejected: rules of the recipe\n"
    assert place in source
    for new, allowed in (('"language"', False), ('"language", Status.REJECTED', True)):
        namespace = dict(vars(schema))
        definition = source.replace(place, f"{place}    LANGUAGE = {new}\n")
        if not allowed:
            with pytest.raises(TypeError, match="status"):
                exec(definition, namespace)
        else:
            exec(definition, namespace)
            assert namespace["Reason"].LANGUAGE.status == "rejected"
