from __future__ import annotations

import json
import random

import pytest

from dfn_ray.pool import derive_uid
from dfn_ray.testing.sample_pools import TarBuilder

UID = "0123456789abcdef" * 2


def one(read, tar: TarBuilder, **settings):
    """The only row of a tar."""
    (row,) = read(tar.getvalue(), **settings).rows
    return row


def test_a_sample_is_its_image_bytes_untouched_its_caption_and_its_json(read):
    image = random.Random(0).randbytes(1000)
    metadata = {"uid": UID, "url": "http://é/", "width": 7, "similarity": 0.25}
    tar = TarBuilder().sample("000", image=image, caption="a cat, «naïve»\n", metadata=metadata)
    row = one(read, tar)
    assert json.loads(row.pop("metadata")) == metadata
    assert row == {
        "uid": UID,
        "row": 0,
        "key": "000",
        "image": image,
        "text": "a cat, «naïve»\n",
        "status": None,
        "reason": None,
    }


def test_a_sample_without_uid_gets_one_of_shard_name_and_key(read, put):
    shard = put(TarBuilder().sample("x/000", image=b"i", caption="c").getvalue(), name="s/7.tar")
    (row,) = read(shard).rows
    assert row["uid"] == derive_uid("s/7.tar", "x/000")
    assert row["metadata"] is None


def test_uids_of_the_samples_can_be_passed_by(read):
    for uid in (UID, "not a uid"):
        tar = TarBuilder().sample("0", image=b"i", caption="c", metadata={"uid": uid})
        row = one(read, tar, uid="derive")
        assert (row["uid"], row["reason"]) == (derive_uid("00000.tar", "0"), None)
    upper = TarBuilder().sample("0", image=b"i", caption="c", metadata={"uid": UID.upper()})
    assert one(read, upper)["uid"] == UID


@pytest.mark.parametrize(
    "extension", ["jpg", "JPG", "jpeg", "png", "webp", "gif", "bmp", "tif", "TIFF"]
)
def test_images_have_many_extensions(read, extension):
    tar = TarBuilder().sample("0", image=b"i", caption="c", image_extension=extension)
    assert one(read, tar)["image"] == b"i"


@pytest.mark.parametrize("key", ["caption", "text"])
def test_the_json_holds_the_caption_where_there_is_no_text(read, key):
    tar = TarBuilder().sample("0", image=b"i", metadata={key: "from json"})
    assert one(read, tar)["text"] == "from json"
    both = TarBuilder().sample("0", image=b"i", caption="from txt", metadata={key: "from json"})
    assert one(read, both)["text"] == "from txt"


FAULTS = {
    "missing_image": TarBuilder().sample("0", caption="c"),
    "empty_image": TarBuilder().sample("0", image=b"", caption="c"),
    "several_images": TarBuilder()
    .member("0.jpg", b"1")
    .member("0.png", b"2")
    .member("0.txt", b"c"),
    "image_too_large": TarBuilder().sample("0", image=bytes(1025), caption="c"),
    "missing_caption": TarBuilder().sample("0", image=b"i"),
    "empty_caption": TarBuilder().sample("0", image=b"i", caption=" \n\t "),
    "caption_not_utf8": TarBuilder().sample("0", image=b"i", caption=b"caf\xe9"),
    "caption_too_long": TarBuilder().sample("0", image=b"i", caption="c" * 101),
    "broken_json": TarBuilder().sample("0", image=b"i", caption="c", metadata=b'{"a": '),
    "bad_uid": TarBuilder().sample("0", image=b"i", caption="c", metadata={"uid": "123"}),
    "unsafe_name": TarBuilder().sample("../0", image=b"i", caption="c"),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_every_fault_of_a_sample_has_its_reason_and_costs_no_other(read, reason):
    tar = TarBuilder().sample("before", image=b"i", caption="c")
    tar.raw(FAULTS[reason].getvalue(end=False)).sample("then", image=b"i", caption="c")
    result = read(tar.getvalue(), max_image_bytes=1024, max_caption_bytes=100)
    assert [row["reason"] for row in result.rows] == [None, reason, None]
    assert result.last.fault is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"{}{}",
        b"\xff{}",
        b"[" * 100_000,
        b'{"a": 1' + b" " * 2**20 + b"}",
    ],
)
def test_only_a_json_object_of_sane_size_is_metadata(read, data):
    row = one(read, TarBuilder().sample("0", image=b"i", caption="c", metadata=data))
    assert (row["reason"], row["metadata"]) == ("broken_json", None)


@pytest.mark.parametrize("value", [None, 7, ["x"], {"a": "b"}])
def test_a_json_caption_that_is_no_string_is_missing(read, value):
    row = one(read, TarBuilder().sample("0", image=b"i", metadata={"caption": value}))
    assert row["reason"] == "missing_caption"


def test_captions_that_utf8_cannot_hold_fail_and_keep_their_metadata(read):
    row = one(read, TarBuilder().sample("0", image=b"i", metadata=b'{"caption": "\\ud800"}'))
    assert row["reason"] == "caption_not_utf8"
    assert json.loads(row["metadata"]) == {"caption": "\ud800"}


def test_metadata_becomes_json_that_every_reader_takes(read):
    data = (
        b'\xef\xbb\xbf{ "nan": NaN, "deep": [-Infinity, {"x": 1e999}],\n '
        b'"big": 123456789012345678901 }'
    )
    row = one(read, TarBuilder().sample("0", image=b"i", caption="c", metadata=data))
    assert row["metadata"] == '{"nan":null,"deep":[null,{"x":null}],"big":123456789012345678901}'


def test_failed_samples_keep_uid_and_metadata(read):
    row = one(read, TarBuilder().sample("0", caption="c", metadata={"uid": UID, "url": "u"}))
    assert row["reason"] == "missing_image"
    assert row["uid"] == UID
    assert json.loads(row["metadata"])["url"] == "u"


def test_the_first_fault_in_the_documented_order_wins(read):
    tar = TarBuilder().member("../0.txt", b"\xff").member("../0.json", b"[").member("../0.jpg", b"")
    assert one(read, tar)["reason"] == "unsafe_name"
    tar = TarBuilder().member("0.txt", b"\xff").member("0.json", b"[").member("0.jpg", b"")
    assert one(read, tar)["reason"] == "empty_image"
    tar = TarBuilder().member("0.txt", b"\xff").member("0.json", b"[").member("0.jpg", b"i")
    assert one(read, tar)["reason"] == "broken_json"


@pytest.mark.parametrize(
    "name", ["/0.jpg", "../0.jpg", "a/../../0.jpg", "a\\..\\..\\0.jpg", "..\\0.jpg"]
)
def test_names_that_leave_the_folder_are_unsafe(read, name):
    assert one(read, TarBuilder().member(name, b"i"))["reason"] == "unsafe_name"


def test_a_nul_in_a_pax_name_is_unsafe(read):
    tar = TarBuilder(2).member("x.jpg", b"i", pax_headers={"path": "a\0b.jpg"})
    row = one(read, tar)
    assert (row["key"], row["reason"]) == ("a\0b", "unsafe_name")


def test_names_that_are_not_utf8_stay_distinct(read):
    tar = TarBuilder()
    for name in ("\udce9", "\udce8"):
        tar.sample(name, image=b"i", caption="c")
    assert read(tar.getvalue()).reasons == {"é": None, "è": None}


def test_other_members_are_no_samples(read):
    tar = TarBuilder().sample("0", image=b"i", caption="c")
    for name in (
        "0.npz",
        "0.cls",
        "1.npz",
        "README",
        "._0.jpg",
        "__MACOSX/0.jpg",
        "PaxHeaders.7/0.jpg",
    ):
        tar.member(name, b"x")
    tar.member("0.syn.json", b"[]").member("0.paug.json", b"[]").member("2.paug.json", b"[]")
    assert read(tar.getvalue()).reasons == {"0": None}


@pytest.mark.parametrize("seed", range(6))
def test_raygens_extras_are_no_samples_in_any_order(read, seed):
    names = [
        f"{i}.{e}" for i in range(4) for e in ("jpg", "txt", "json", "syn.json", "paug.json", "npz")
    ]
    random.Random(seed).shuffle(names)
    tar = TarBuilder()
    for name in names:
        tar.member(name, b'{"from": "%s"}' % name.encode())
    rows = read(tar.getvalue()).rows
    assert sorted(row["key"] for row in rows) == ["0", "1", "2", "3"]
    assert {row["reason"] for row in rows} == {None}
    assert all(json.loads(row["metadata"])["from"] == f"{row['key']}.json" for row in rows)


@pytest.mark.parametrize(
    "order", [("jpg", "json", "txt"), ("txt", "json", "jpg"), ("json", "jpg", "txt")]
)
@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
def test_an_image_with_a_dotted_name_gathers_what_has_its_name(read, order, chunk_rows):
    data = {"jpg": b"i", "txt": b"c", "json": b'{"a": 1}'}
    tar = TarBuilder()
    for key in ("img", "img.v2", "a.b.c", "a.b.d", "x/y.z"):
        for extension in order:
            tar.member(f"{key}.{extension}", data[extension])
    result = read(tar.getvalue(), chunk_rows=chunk_rows)
    assert result.reasons == dict.fromkeys(("img", "img.v2", "a.b.c", "a.b.d", "x/y.z"))
    assert {row["metadata"] for row in result.rows} == {'{"a":1}'}
    if chunk_rows == 1:
        some = read(tar.getvalue(), chunk_rows=1, **result.skipping(0, 2, 4))
        assert some.rows == [result.rows[1], result.rows[3]]


def test_a_leading_dot_slash_is_not_part_of_a_key(read):
    assert read(TarBuilder().sample("./x/0", image=b"i", caption="c").getvalue()).reasons == {
        "x/0": None
    }


def test_members_may_be_apart_within_their_chunk(read):
    tar = (
        TarBuilder()
        .member("0.txt", b"c0")
        .member("1.txt", b"c1")
        .member("0.jpg", b"i")
        .member("1.jpg", b"i")
    )
    result = read(tar.getvalue(), chunk_rows=2)
    assert [(row["key"], row["text"]) for row in result.rows] == [("0", "c0"), ("1", "c1")]


def test_a_member_of_a_chunk_already_closed_is_a_row_of_its_own(read):
    tar = TarBuilder().sample("0", image=b"i", caption="c").sample("1", image=b"i", caption="c")
    tar.member("0.jpg", b"again").member("0.txt", b"again").sample("2", image=b"i", caption="c")
    result = read(tar.getvalue(), chunk_rows=1)
    assert [(row["key"], row["reason"]) for row in result.rows] == [
        ("0", None),
        ("1", None),
        ("0", "non_contiguous_key"),
        ("2", None),
    ]


@pytest.mark.parametrize("first", ["jpg", "txt"])
@pytest.mark.parametrize("chunk_rows", [1, 3, 7, 20, 21])
def test_all_images_first_then_all_captions_read_fully(read, put, first, chunk_rows):
    second = "txt" if first == "jpg" else "jpg"
    tar = TarBuilder()
    for extension in (first, "json", second):
        for number in range(20):
            data = b"{}" if extension == "json" else b"%s %d" % (extension.encode(), number)
            tar.member(f"{number:02d}.{extension}", data)
    shard = put(tar.getvalue())
    result = read(shard, chunk_rows=chunk_rows)
    assert [(row["image"], row["text"]) for row in result.rows] == [
        (b"jpg %d" % number, f"txt {number}") for number in range(20)
    ]
    assert max(chunk.rows for chunk in result.chunks) <= chunk_rows
    some = read(shard, chunk_rows=chunk_rows, **result.skipping(0))
    assert some.chunks == result.chunks[1:]


def test_a_tar_sorted_by_extension_keeps_to_the_bytes_of_a_chunk(read):
    tar = TarBuilder()
    for number in range(8):
        tar.member(f"{number}.txt", b"c")
    for number in range(8):
        tar.member(f"{number}.jpg", bytes(700_000))
    result = read(tar.getvalue(), chunk_bytes=2**20)
    assert result.boundaries == [(0, 2), (2, 2), (4, 2), (6, 2)]
    assert {row["reason"] for row in result.rows} == {None}


def test_a_cut_tar_sorted_by_extension_loses_only_what_is_cut(read):
    tar = TarBuilder()
    for extension in ("jpg", "txt"):
        for number in range(6):
            tar.member(f"{number}.{extension}", b"x" * 600)
    cut = tar.getvalue()[: len(tar) - 2 * 1536 - 600]
    result = read(cut, chunk_rows=2)
    assert result.reasons == {
        "0": None,
        "1": None,
        "2": None,
        "3": "truncated_shard",
        "4": "missing_caption",
        "5": "missing_caption",
    }
    assert result.last.fault == "truncated_shard"


def test_what_webdatasets_own_writer_writes_is_read(read, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "00000.tar"
    expected = []
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(30):
            image = random.Random(number).randbytes(500 + number)
            key = f"folder/{number:05d}"
            writer.write(
                {"__key__": key, "jpg": image, "txt": f"caption {number}", "json": {"n": number}}
            )
            expected.append((key, image, f"caption {number}", {"n": number}))
    rows = read(path.read_bytes(), chunk_rows=7).rows
    assert [(r["key"], r["image"], r["text"], json.loads(r["metadata"])) for r in rows] == expected
