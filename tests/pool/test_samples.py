"""Captions in a member, in JSON or in both; and visible characters of a text."""

from __future__ import annotations

import json
import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.config import Pool, Rules
from dfn_ray.pool.captions import TEXT
from dfn_ray.pool.samples import Draft
from dfn_ray.pool.text import has_visible
from dfn_ray.preparing.rules import SizeRule
from dfn_ray.schema import Reason


def caption(*, txt: bytes | None = None, sidecar: object = None, **settings) -> str | list[str]:
    """The caption or captions of a sample, or the reason why it has none."""
    data = None if sidecar is None else json.dumps(sidecar).encode()
    draft = Draft(row=0, key="a", images=1, image_size=1, image=b"i")
    if txt is not None:
        draft.caption_size, draft.captions = len(txt), {TEXT: txt}
    draft.json, draft.json_size = data, None if data is None else len(data)
    row = draft.finish(Pool(uri=("x",), **settings), "0.tar")
    return row[4] if row[4] is not None else row[7] or ""


@pytest.mark.parametrize(
    ("sidecar", "expected"),
    [
        ({"caption": None, "text": "a real one"}, "a real one"),
        ({"caption": "", "text": "a real one"}, "a real one"),
        ({"caption": " \u200b", "text": "a real one"}, "a real one"),
        ({"caption": 5, "text": "a real one"}, "a real one"),
        ({"caption": "first", "text": "second"}, "first"),
        ({"caption": "", "text": None}, "empty_caption"),
        ({"caption": None}, "missing_caption"),
        ({"caption": ["one", "two"]}, "missing_caption"),
    ],
)
def test_the_first_key_of_json_that_holds_text_is_the_caption(sidecar, expected):
    assert caption(sidecar=sidecar) == expected


@pytest.mark.parametrize("txt", [b"", b" \n", b"\xef\xbb\xbf", b"\0"])
def test_an_empty_caption_gives_way_to_one_in_json(txt):
    assert caption(txt=txt, sidecar={"caption": "a real one"}) == "a real one"
    assert caption(txt=txt, sidecar={"caption": ""}) == "empty_caption"
    assert caption(txt=txt, sidecar={"width": 1}) == "empty_caption"
    assert caption(txt=txt) == "empty_caption"


def test_a_caption_with_a_fault_does_not_give_way():
    assert caption(txt=b"caf\xe9", sidecar={"caption": "other"}) == "caption_not_utf8"
    assert caption(txt=b"a cat", sidecar={"caption": "other"}) == "a cat"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (7, "7"),
        (7.0, "7"),
        (7.5, "bad_label"),
        ("7", "7"),
        (math.nan, "missing_caption"),
        (True, "missing_caption"),
    ],
)
def test_labels_in_json_are_numbers_of_any_kind(label, expected):
    assert caption(sidecar={"cls": None, "label": label}, caption="label") == expected


INVISIBLE = [
    "\0",
    "\u200b\u200d",
    "\ufeff",
    "\x07\x1b",
    "\u2028",
    "\u3164",
    "\u2800",
    "\ufe0f",
    "\U000e0041",
    "\xad",
]


@pytest.mark.parametrize("text", [*INVISIBLE, "".join(INVISIBLE), " \t\u3000"])
def test_captions_of_nothing_visible_are_empty(text):
    assert caption(txt=text.encode()) == "empty_caption"
    assert caption(txt=f"{text}a{text}".encode()) == f"{text}a{text}".removeprefix("\ufeff")


def test_exactly_spaces_controls_and_formats_are_invisible_among_categories():
    for code in range(0x110000):
        kind = unicodedata.category(chr(code))
        if kind in ("Cc", "Cf", "Zs", "Zl", "Zp"):
            assert not has_visible(chr(code)), hex(code)
        elif kind[0] in "PNS" and code != 0x2800:
            assert has_visible(chr(code)), hex(code)


@pytest.mark.parametrize(
    ("width", "height", "judged"),
    [
        ("640", "480", None),
        (" 640.0 ", 480, None),
        ("64", "480", Reason.IMAGE_SIDE),
        ("", "480", Reason.IMAGE_SIDE),
        ("wide", 480, Reason.IMAGE_SIDE),
        (None, 480, Reason.IMAGE_SIDE),
        ("9" * 5000, 480, Reason.IMAGE_SIDE),
        ("0", "480", Reason.IMAGE_SIDE),
        (10**400, 480, Reason.IMAGE_SIDE),
        (10**9, 10**9, Reason.IMAGE_SIDE),
        (1e300, 480, Reason.IMAGE_SIDE),
        (math.inf, 480, Reason.IMAGE_SIDE),
        (math.nan, 480, Reason.IMAGE_SIDE),
        (-640, 480, Reason.IMAGE_SIDE),
        (0.5, 480, Reason.IMAGE_SIDE),
        (True, 480, Reason.IMAGE_SIDE),
        ([640], {"a": 480}, Reason.IMAGE_SIDE),
        (999_999_999, 480, None),
    ],
)
def test_original_sizes_count_as_numbers_and_as_text(width, height, judged):
    metadata = json.dumps({"original_width": width, "original_height": height})
    assert SizeRule(Rules(min_image_side=200), [metadata])(0, 100, 100) == judged


SIDES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text("0123456789.eE+- ")
    | st.just(10**400)
)


@given(width=SIDES, height=SIDES, own=st.integers(1, 2**31 - 1))
def test_no_original_size_is_raised(width, height, own):
    metadata = json.dumps({"original_width": width, "original_height": height})
    SizeRule(Rules(min_image_side=2, max_aspect_ratio=1.5), [metadata])(0, own, 7)
