"""Several captions per sample: every form in sources, and invalid ones.

And texts that look like several captions without the setting.
"""

from __future__ import annotations

import io
import json
import random
import tarfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.config import Pool
from dfn_ray.pool.inspect import inspect_pool
from dfn_ray.testing.sample_pools import TarBuilder, photo

FIVE = ["a cat", "the cat sits", "ein Kater", "猫", "two\nlines of one"]
LINES = [text.replace("\n", " ") for text in FIVE]
BOM = b"\xef\xbb\xbf"


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


def txt(text: str | bytes) -> bytes:
    return TarBuilder().sample("a", image=b"i", caption=text).getvalue()


def sidecar(value: Any) -> bytes:
    return TarBuilder().sample("a", image=b"i", metadata={"width": 3, **value}).getvalue()


def numbered(texts: list[str], *, first: int = 0, image_last: bool = False) -> bytes:
    tar = TarBuilder()
    members = [(f"a.{number}.txt", text) for number, text in enumerate(texts, first)]
    for name, data in [*members, ("a.jpg", "i")] if image_last else [("a.jpg", "i"), *members]:
        tar.member(name, data)
    return tar.getvalue()


FORMS = {
    "lines of a member": (txt("\n".join(LINES)), "lines", LINES),
    "lines with carriage returns": (txt("\r\n".join(LINES) + "\r\n"), "lines", LINES),
    "blank lines are none": (txt("\n\n" + "\n \t\n".join(LINES) + "\n\n"), "lines", LINES),
    "lines behind a mark": (txt(BOM + "\n".join(LINES).encode()), "lines", LINES),
    "lines in JSON": (sidecar({"caption": "\n".join(LINES)}), "lines", LINES),
    "a JSON array, lines": (sidecar({"caption": FIVE}), "lines", FIVE),
    "a JSON array": (sidecar({"caption": FIVE}), "list", FIVE),
    "a JSON array of captions": (sidecar({"captions": [None, "", *FIVE, 5, ["x"]]}), "list", FIVE),
    "an empty key before a full one": (sidecar({"caption": [], "texts": FIVE}), "list", FIVE),
    "one text in JSON": (sidecar({"text": "two\nlines"}), "list", ["two\nlines"]),
    "a JSON array in a member": (txt(json.dumps(FIVE)), "list", FIVE),
    "an ASCII array with nulls": (txt(f" {json.dumps([None, *FIVE])}"), "list", FIVE),
    "no array of strings": (txt("[1, 2] is a set"), "list", ["[1, 2] is a set"]),
    "an array of numbers": (txt("[1, 2]"), "list", ["[1, 2]"]),
    "one text stays one": (txt("two\nlines"), "list", ["two\nlines"]),
    "numbered members": (numbered(FIVE), "list", FIVE),
    "numbered members from 1": (numbered(FIVE, first=1), "list", FIVE),
    "numbered members first": (numbered(FIVE, image_last=True), "list", FIVE),
    "11 numbered members": (
        numbered([f"c {n}" for n in range(11)]),
        "list",
        [f"c {n}" for n in range(11)],
    ),
    "numbered members beside one without": (
        TarBuilder()
        .member("a.1.txt", "one")
        .member("a.0.txt", "zero")
        .sample("a", image=b"i", caption="first")
        .getvalue(),
        "list",
        ["first", "zero", "one"],
    ),
    "a column of lines": (parquet({"image": [b"i"], "text": ["\n".join(LINES)]}), "lines", LINES),
    "a list column, lines": (parquet({"image": [b"i"], "text": [FIVE]}), "lines", FIVE),
    "a list column": (
        parquet({"image": [b"i"], "captions": [["", *FIVE, None, " "]]}),
        "list",
        FIVE,
    ),
    "a list column before a text": (
        parquet({"image": [b"i"], "text": ["one"], "caption": [FIVE]}),
        "list",
        FIVE,
    ),
    "an array in a column": (
        parquet({"image": [b"i"], "caption": [json.dumps(FIVE)]}),
        "list",
        FIVE,
    ),
    "numbered columns": (
        parquet(
            {
                "image": [b"i"],
                **{f"caption_{n}": [FIVE[n]] for n in (4, 1, 0, 3, 2)},
                "caption_7": pa.nulls(1, pa.string()),
            }
        ),
        "list",
        FIVE,
    ),
    "numbered columns before a text": (
        parquet(
            {"image": [b"i"], "caption": ["one"], "caption_10": ["ten"], "caption_9": ["nine"]}
        ),
        "list",
        ["nine", "ten"],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_several_captions_gives_them_in_order(read, form):
    data, caption, expected = FORMS[form]
    result = read(data, caption=caption)
    assert [(row["text"], row["reason"]) for row in result.rows] == [(expected, None)]
    assert result.last.fault is None


def test_columns_with_other_names_are_named_with_a_star(read):
    columns = {
        "image": [b"i"],
        "text": ["x"],
        "alt_1_en": ["b"],
        "alt_0_en": ["a"],
        "alt_en": ["c"],
    }
    result = read(parquet(columns), caption="list", text_column="alt_*_en")
    assert [row["text"] for row in result.rows] == [["a", "b"]]
    assert json.loads(result.rows[0]["metadata"]) == {"text": "x", "alt_en": "c"}


def test_numbered_members_are_extras_of_their_image_unless_asked_for(read):
    """Keys, and therefore uids, are unchanged."""
    tar = TarBuilder().sample("a", image=b"i", caption="one").member("a.0.txt", "two")
    tar.sample("b.1", image=b"i", caption="dotted")
    rows = read(tar.getvalue()).rows
    assert [(row["key"], row["text"]) for row in rows] == [("a", "one"), ("b.1", "dotted")]
    listed = read(tar.getvalue(), caption="list").rows
    assert [row["key"] for row in listed] == ["a", "b.1", "b"]
    assert listed[0]["text"] == ["one", "two"]
    assert [row["uid"] for row in listed[:2]] == [row["uid"] for row in rows]


def test_numbered_members_are_found_however_a_tar_is_ordered(read):
    members = [(f"{key}.jpg", b"i") for key in "abcd"]
    members += [(f"{key}.{n}.txt", f"{key} {n}".encode()) for key in "abcd" for n in range(5)]
    for seed in range(6):
        order = random.Random(seed).sample(members, len(members)) if seed else members
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name, data in order:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        # What is all over a tar must meet in a chunk; all images before all captions need not.
        rows = read(file.getvalue(), caption="list", chunk_rows=64 if seed else 2).rows
        assert {row["key"]: row["text"] for row in rows} == {
            k: [f"{k} {n}" for n in range(5)] for k in "abcd"
        }


HOSTILE = {
    "10,000 lines": (txt("\n".join("x" * 5 for _ in range(10_000))), "lines", "too_many_captions"),
    "257 lines": (txt("x\n" * 257), "lines", "too_many_captions"),
    "257 members": (numbered(["x"] * 257), "list", "too_many_captions"),
    "3,000 members": (numbered(["x"] * 3000), "list", "too_many_captions"),
    "257 items": (sidecar({"caption": ["x"] * 257}), "list", "too_many_captions"),
    "a line that is not UTF-8": (txt(b"one\ncaf\xe9\nthree"), "lines", "caption_not_utf8"),
    "a member that is not UTF-8": (
        TarBuilder()
        .sample("a", image=b"i")
        .member("a.0.txt", "one")
        .member("a.1.txt", b"caf\xe9")
        .getvalue(),
        "list",
        "caption_not_utf8",
    ),
    "half a pair in an array": (txt(r'["one", "\ud83d"]'), "list", "caption_not_utf8"),
    "half a pair in JSON": (sidecar({"caption": ["one", "\ud83d"]}), "list", "caption_not_utf8"),
    "lines too long together": (txt(("x" * 10_000 + "\n") * 7), "lines", "caption_too_long"),
    "members too long together": (numbered(["x" * 20_000] * 4), "list", "caption_too_long"),
    "items too long together": (
        sidecar({"caption": ["x" * 20_000] * 4}),
        "list",
        "caption_too_long",
    ),
    "nested lists": (sidecar({"caption": [["one"], [["two"]]]}), "list", "empty_caption"),
    "numbers": (sidecar({"caption": [1, 2.5, True, {}]}), "list", "empty_caption"),
    "an empty array": (txt("[]"), "list", "empty_caption"),
    "nulls": (txt("[null, null]"), "list", "empty_caption"),
    "blank lines": (txt("\n \n\u200b\n"), "lines", "empty_caption"),
    "open brackets": (txt("[" * 5000), "list", None),
    "no caption": (sidecar({}), "list", "missing_caption"),
    "a list too long together": (
        parquet({"image": [b"i"], "text": [["x" * 20_000] * 4]}),
        "list",
        "caption_too_long",
    ),
    "10,000 items": (
        parquet({"image": [b"i"], "text": [["x"] * 10_000]}),
        "list",
        "too_many_captions",
    ),
    "a million nulls": (
        parquet({"image": [b"i"], "text": pa.array([[None] * 10**6 + ["x"]])}),
        "list",
        None,
    ),
    "a null list": (
        parquet({"image": [b"i"], "text": pa.array([None], pa.list_(pa.string()))}),
        "list",
        "missing_caption",
    ),
    "an empty list": (
        parquet({"image": [b"i"], "text": pa.array([[]], pa.list_(pa.string()))}),
        "list",
        "empty_caption",
    ),
    "an item that is not UTF-8": (
        parquet({"image": [b"i"], "text": pa.array([[b"one", b"caf\xe9"]])}),
        "list",
        "caption_not_utf8",
    ),
    "columns too long together": (
        parquet({"image": [b"i"], **{f"text_{n}": ["x" * 20_000] for n in range(4)}}),
        "list",
        "caption_too_long",
    ),
}


@pytest.mark.parametrize("form", HOSTILE)
def test_hostile_captions_cost_their_sample_alone_and_by_reason(read, form):
    data, caption, reason = HOSTILE[form]
    if data[:4] != b"PAR1":
        data = data[:-1024] + TarBuilder().sample("b", image=b"i", caption="after").getvalue()
    rows = read(data, caption=caption).rows
    assert rows[0]["reason"] == reason
    assert [row["text"] for row in rows[1:]] in ([], [["after"]])


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int64()), pa.list_(pa.list_(pa.string())), pa.struct([("a", pa.string())])]
)
@pytest.mark.parametrize("name", ["caption", "caption_0"])
def test_a_column_that_holds_no_strings_is_a_fault_of_the_shard(read, kind, name):
    result = read(parquet({"image": [b"i"], name: pa.nulls(1, kind)}), caption="list")
    assert result.last.fault == "mistyped_column"


def test_lists_of_strings_unasked_are_a_fault_that_names_the_setting(read):
    result = read(parquet({"image": [b"i"], "caption": [FIVE]}))
    assert result.last.fault == "mistyped_column"
    assert 'set pool.caption = "list" to read it' in result.last.detail


UNASKED = {
    "five lines": (txt("\n".join(LINES)), True),
    "an array in a text": (txt(json.dumps(FIVE)), True),
    "an array in JSON": (sidecar({"captions": FIVE}), True),
    "a column of lines": (parquet({"image": [b"i"], "text": ["a\nb"]}), True),
    "a line and an end": (txt("one line\n\n \n"), False),
    "an array of one": (txt('["one"]'), False),
    "one caption": (txt("a cat"), False),
    "one caption beside an array of one": (sidecar({"caption": ["one"]}), False),
}


@pytest.mark.parametrize("form", UNASKED)
def test_what_looks_like_several_captions_is_read_as_before_and_noted(read, form):
    data, looks_so = UNASKED[form]
    result = read(data)
    assert result.last.notes == ({"several_captions": 1} if looks_so else {})
    if "lines" in form:
        assert result.rows[0]["text"] in ("\n".join(LINES), "a\nb")
    for caption in ("lines", "list"):
        assert read(data, caption=caption).last.notes == {}


def test_a_pool_that_looks_like_several_captions_is_told_by_inspect(tmp_path):
    (tmp_path / "0.tar").write_bytes(
        TarBuilder().sample("a", image=photo(0), caption="\n".join(LINES)).getvalue()
    )
    said = "\n".join(inspect_pool(Pool(uri=(str(tmp_path),))).lines())
    assert (
        "captions that look like several captions but are read as one; see pool.caption = "
        '"lines" and "list"' in said
    )
    several = inspect_pool(Pool(uri=(str(tmp_path),), caption="lines"))
    assert several.quantiles["caption_chars"]["min"] == 1
    assert several.examples[0].caption == " | ".join(LINES)
