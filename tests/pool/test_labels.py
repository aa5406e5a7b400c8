"""Labelled pools, `pool.caption = "label"`. Several captions are in `test_captions.py`."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.pool import derive_uid
from dfn_ray.testing.sample_pools import TarBuilder

IMAGES = [b"i0", b"i1", b"i2"]


def parquet(columns: dict[str, object]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def labelled_tar(*labels: str | bytes) -> bytes:
    tar = TarBuilder()
    for number, label in enumerate(labels):
        tar.member(f"s{number}.webp", b"image").member(f"s{number}.cls", label)
    return tar.getvalue()


def test_a_cls_member_is_the_caption_of_a_labelled_tar(read):
    result = read(labelled_tar("7", "0", " 012\n"), caption="label")
    assert [row["text"] for row in result.rows] == ["7", "0", "12"]
    assert [row["image"] for row in result.rows] == [b"image"] * 3
    assert [row["uid"] for row in result.rows] == [
        derive_uid("00000.tar", f"s{n}") for n in range(3)
    ]


@pytest.mark.parametrize("label", ["cat", "-1", "1.0", "٣", "9" * 10, b"\xff"])
def test_a_label_that_is_no_class_number_fails_its_sample_alone(read, label):
    result = read(labelled_tar("1", label, "2"), caption="label")
    reason = "caption_not_utf8" if isinstance(label, bytes) else "bad_label"
    assert [row["reason"] for row in result.rows] == [None, reason, None]


def test_a_labelled_tar_needs_labels_and_passes_captions_by(read):
    tar = (
        TarBuilder().sample("a", image=b"i", caption="3").member("b.cls", "1").member("b.png", b"i")
    )
    result = read(tar.getvalue(), caption="label")
    assert result.reasons == {"a": "missing_caption", "b": None}


def test_a_label_may_be_in_the_metadata(read):
    tar = TarBuilder().sample("a", image=b"i", metadata={"label": 4, "caption": "x"})
    tar.sample("b", image=b"i", metadata={"label": True})
    result = read(tar.getvalue(), caption="label")
    assert [(row["text"], row["reason"]) for row in result.rows] == [
        ("4", None),
        (None, "missing_caption"),
    ]


def test_labels_are_found_when_all_images_come_first(read):
    tar = TarBuilder()
    for number in range(4):
        tar.member(f"{number}.jpg", b"i")
    for number in range(4):
        tar.member(f"{number}.cls", str(number))
    result = read(tar.getvalue(), caption="label", chunk_rows=2)
    assert [row["text"] for row in result.rows] == ["0", "1", "2", "3"]


def test_a_labelled_tar_that_is_cut_off_loses_its_last_sample(read):
    data = labelled_tar("0", "1")
    result = read(data[: 3 * 1024 + 512 + 0], caption="label")
    assert result.reasons == {"s0": None, "s1": "truncated_shard"}
    assert result.last.fault == "truncated_shard"


def test_without_the_setting_cls_is_an_extra_as_before(read):
    tar = TarBuilder().sample("a", image=b"i", caption="a cat").member("a.cls", "3")
    assert [row["text"] for row in read(tar.getvalue()).rows] == ["a cat"]


@pytest.mark.parametrize("name", ["cls", "label"])
@pytest.mark.parametrize("kind", [pa.int64(), pa.uint8(), pa.string()])
def test_a_label_column_is_the_caption_of_labelled_parquet(read, name, kind):
    labels = pa.array([3, 0, None]).cast(kind)
    result = read(
        parquet({"image": IMAGES, name: labels, "text": ["x", "y", "z"]}), caption="label"
    )
    assert [(row["text"], row["reason"]) for row in result.rows] == [
        ("3", None),
        ("0", None),
        (None, "missing_caption"),
    ]
    assert json.loads(result.rows[0]["metadata"]) == {"text": "x"}


def test_a_label_column_of_another_type_is_a_fault_of_the_shard(read):
    result = read(parquet({"image": IMAGES, "cls": [True, False, True]}), caption="label")
    assert result.last.fault == "mistyped_column"
