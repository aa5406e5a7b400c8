"""Image folders: a class folder is a shard, its samples the image files in order of name."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from dfn_ray.config import Pool
from dfn_ray.errors import InputError, ShardChangedError, StorageAccessError, StorageError
from dfn_ray.pool import (
    derive_uid,
    folder,
    iter_chunks,
    list_pool,
    list_shards,
    listing_notes,
    read_rows,
)
from dfn_ray.storage import Store, read_uri


def write(root: Path | str, files: dict[str, bytes]) -> str:
    store = Store(str(root))
    for name, data in files.items():
        store.write(name, data)
    return str(root)


FILES = {
    "dog/b.JPEG": b"b",
    "dog/a.png": b"a",
    "dog/more/c.webp": b"c",
    "dog/notes.txt": b"no image",
    "dog/.hidden.jpg": b"h",
    "cat/z.jpg": b"z",
    "readme.jpg": b"in no class",
}


def folder_pool(root: str, **settings) -> Pool:
    return Pool(uri=(root,), format="folder", **settings)


def rows_of(pool: Pool) -> list[dict]:
    return [
        row
        for shard in list_shards(pool)
        for _, table in iter_chunks(shard, pool)
        for row in table.to_pylist()
    ]


def test_a_class_folder_is_a_shard_with_the_bytes_below_it(tmp_path):
    shards = list_shards(folder_pool(write(tmp_path, FILES)))
    assert [(shard.name, shard.size_bytes) for shard in shards] == [("cat", 1), ("dog", 12)]


def test_images_come_in_the_order_of_their_names_with_the_class_as_caption(tmp_path):
    rows = rows_of(folder_pool(write(tmp_path, FILES)))
    assert [(row["key"], row["image"], row["text"]) for row in rows] == [
        ("z.jpg", b"z", "cat"),
        ("a.png", b"a", "dog"),
        ("b.JPEG", b"b", "dog"),
        ("more/c.webp", b"c", "dog"),
    ]
    assert rows[0]["uid"] == derive_uid("cat", "z.jpg")


def test_a_label_is_the_place_of_the_folder_among_all_of_its_root(tmp_path):
    root = write(tmp_path, FILES)
    (tmp_path / "bird").mkdir()  # a class without images keeps its number, as in torchvision
    rows = rows_of(folder_pool(root, caption="label"))
    assert [(row["key"], row["text"]) for row in rows] == [
        ("z.jpg", "1"),
        ("a.png", "2"),
        ("b.JPEG", "2"),
        ("more/c.webp", "2"),
    ]


def test_the_bytes_of_all_files_are_passed_so_that_progress_ends_at_its_end(tmp_path):
    pool = folder_pool(write(tmp_path, FILES), chunk_rows=1)
    for shard in list_shards(pool):
        passed = sum(chunk.bytes_read for chunk, _ in iter_chunks(shard, pool))
        assert passed == shard.size_bytes


def test_folders_are_cut_into_chunks_and_single_rows_read_back(tmp_path, monkeypatch):
    root = write(tmp_path, {f"x/{n:02d}.jpg": b"%02d" % n for n in range(10)})
    pool = folder_pool(root, chunk_rows=4)
    (shard,) = list_shards(pool)
    chunks = [chunk for chunk, _ in iter_chunks(shard, pool)]
    assert [(c.first_row, c.rows, c.bytes_read, c.last) for c in chunks] == [
        (0, 4, 8, False),
        (4, 4, 8, False),
        (8, 2, 4, True),
    ]
    assert [c.first_row for c, _ in iter_chunks(shard, pool, skip={0, 8}, last=8)] == [4]
    read: list[str] = []
    monkeypatch.setattr(folder, "read_uri", lambda uri: read.append(uri[-6:]) or read_uri(uri))
    tables = list(read_rows(shard, pool, {3, 9}))
    assert sorted(read) == ["03.jpg", "09.jpg"]
    assert [value for table in tables for value in table["image"].to_pylist()] == [b"03", b"09"]


def test_bad_files_cost_themselves(tmp_path):
    root = write(tmp_path, {"x/a.jpg": b"", "x/b.jpg": b"b", "x/c.jpg": b"c" * 2000})
    rows = rows_of(folder_pool(root, max_image_bytes=1024))
    assert [row["reason"] for row in rows] == ["empty_image", None, "image_too_large"]


def test_what_is_gone_since_it_was_listed_is_missing(tmp_path, monkeypatch):
    root = write(tmp_path, {"x/a.jpg": b"a", "x/b.jpg": b"b", "y/a.jpg": b"a"})
    pool = folder_pool(root, caption="label")
    gone, kept = list_shards(pool)
    read = folder.read_uri

    def removing(uri):
        (tmp_path / "x/a.jpg").unlink(missing_ok=True)
        return read(uri)

    monkeypatch.setattr(folder, "read_uri", removing)
    ((_, table),) = iter_chunks(gone, pool)
    assert table["reason"].to_pylist() == ["missing_image", None]
    monkeypatch.undo()
    (tmp_path / "y/a.jpg").unlink()
    with pytest.raises(ShardChangedError, match="listed with 1 bytes, found with 0"):
        list(iter_chunks(kept, pool))
    ((chunk, _),) = iter_chunks(replace(kept, size_bytes=0), pool)
    assert chunk.fault == "empty_shard"
    (tmp_path / "y").rmdir()
    ((chunk, _),) = iter_chunks(kept, pool)
    assert chunk.fault == "missing_shard"


@pytest.mark.parametrize("files", [{}, {"a.jpg": b"a", "b.tar": b"b"}])
def test_a_root_without_class_folders_is_told_before_anything_is_read(tmp_path, files):
    with pytest.raises(InputError, match="no class folders"):
        list_shards(folder_pool(write(tmp_path, files)))


def test_folders_of_an_object_store_are_read_as_well():
    root = write("memory://folders", {"b/1.jpg": b"b1", "a/1.jpg": b"a1", "a/deep/2.png": b"a2"})
    rows = rows_of(folder_pool(root, caption="label"))
    assert [(row["key"], row["image"], row["text"]) for row in rows] == [
        ("1.jpg", b"a1", "0"),
        ("deep/2.png", b"a2", "0"),
        ("1.jpg", b"b1", "1"),
    ]


def test_labels_are_the_class_numbers_of_torchvision(tmp_path):
    pool = tmp_path / "pool"
    for name in ("ant", "Bee", ".hidden", "_private", "cat", "a b", "z\\xe9", "ünder", "10", "9"):
        write(pool / name, {"x.jpg": name.encode()})
    write(tmp_path / "disk" / "bear", {"x.jpg": b"link"})
    (pool / "bear").symlink_to(tmp_path / "disk" / "bear")
    os.makedirs(os.fsencode(pool) + b"/caf\xe9")
    (pool / "caf\udce9" / "x.jpg").write_bytes(b"latin")
    expected = {Path(path).read_bytes(): str(label) for path, label in ImageFolder(pool).samples}
    rows = rows_of(folder_pool(str(pool), caption="label"))
    assert {row["image"]: row["text"] for row in rows} == expected
    notes = listing_notes(list_pool(folder_pool(str(pool))))
    assert any("2 class folders have hidden names" in note for note in notes)


def test_names_that_are_not_utf8_are_keys_in_escapes_and_no_captions(tmp_path):
    for name in (b"caf\xe9", b"ok"):
        os.makedirs(os.path.join(os.fsencode(tmp_path), name))
        for file in (b"na\xefve.jpg", b"na\\xefve.jpg"):
            Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name, file))).write_bytes(file)
    rows = rows_of(folder_pool(str(tmp_path)))
    assert [(row["key"], row["image"], row["reason"]) for row in rows[2:]] == [
        ("na\\x5cxefve.jpg", b"na\\xefve.jpg", None),
        ("na\\xefve.jpg", b"na\xefve.jpg", None),
    ]
    assert [row["reason"] for row in rows[:2]] == ["caption_not_utf8"] * 2
    rows = rows_of(folder_pool(str(tmp_path), caption="label"))
    assert [row["text"] for row in rows] == ["0", "0", "1", "1"]
    assert len({row["uid"] for row in rows}) == 4


def test_links_below_a_class_folder_are_followed_and_dangling_links_have_no_image(tmp_path):
    root = write(tmp_path / "pool", {"x/a.jpg": b"a", "x/.tmp/b.jpg": b"b", "x/_old/c.jpg": b"c"})
    write(tmp_path / "disk", {"d.jpg": b"d"})
    (tmp_path / "pool/x/more").symlink_to(tmp_path / "disk")
    (tmp_path / "pool/x/gone.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "pool/x/up").symlink_to(tmp_path / "pool")
    rows = rows_of(folder_pool(root))
    assert [(row["key"], row["reason"]) for row in rows] == [
        ("a.jpg", None),
        ("gone.jpg", "missing_image"),
        ("more/d.jpg", None),
    ]
    notes = listing_notes(list_pool(folder_pool(root)))
    assert [note.partition(";")[0] for note in notes] == [
        "pool: 2 hidden folders (names that begin with . or _) are not read",
        "pool: 1 links point back to a folder above them and are not followed",
    ]


@pytest.mark.parametrize("link", ["bee", ".bee", "zebra", "bee.jpg"])
@pytest.mark.parametrize("target", ["/mnt/not_mounted", "ant/x.jpg/below"])
def test_a_dangling_link_among_class_folders_is_an_error(tmp_path, link, target):
    root = write(tmp_path, {"ant/x.jpg": b"a", "cat/x.jpg": b"c"})
    (tmp_path / link).symlink_to(target)
    for caption in ("label", "text"):
        message = f"/{link}: a link to .*{target}, which does not exist; mount"
        with pytest.raises(StorageAccessError, match=message):
            list_shards(folder_pool(root, caption=caption))


def test_a_root_of_class_folders_that_is_a_dangling_link_is_named(tmp_path):
    (tmp_path / "classes").symlink_to("/mnt/not_mounted")
    with pytest.raises(StorageAccessError, match="/classes: a link to /mnt/not_mounted"):
        list_shards(folder_pool(f"{tmp_path}/classes"))


def test_a_class_that_is_unmounted_while_a_pool_is_read_does_not_change_labels(tmp_path):
    root = write(tmp_path / "pool", {"ant/x.jpg": b"a", "cat/x.jpg": b"c"})
    write(tmp_path / "disk", {"x.jpg": b"b"})
    (tmp_path / "pool/bee").symlink_to(tmp_path / "disk")
    pool = folder_pool(root, caption="label")
    ant, bee, cat = list_shards(pool)
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    for shard in (ant, bee, cat):
        with pytest.raises(StorageAccessError, match="/bee: a link to"):
            list(iter_chunks(shard, pool))


def test_a_folders_dangling_link_below_a_class_is_said(tmp_path):
    root = write(tmp_path, {"ant/x.jpg": b"a"})
    (tmp_path / "ant/more").symlink_to("/mnt/not_mounted")
    (tmp_path / "ant/gone.jpg").symlink_to("nothing")
    assert listing_notes(list_pool(folder_pool(root))) == [
        "pool: 1 links are dangling (their target does not exist, e.g. on a disk that is not "
        f"mounted) and are not followed; the first is {tmp_path}/ant/more, a link to "
        "/mnt/not_mounted"
    ]


def test_a_class_folder_without_an_image_is_empty_and_one_whose_root_is_gone_an_error(tmp_path):
    pool = folder_pool(write(tmp_path / "pool", {"x/a.jpg": b"a", "y/notes.txt": b"n"}))
    x, y = list_shards(pool)
    ((chunk, _),) = iter_chunks(y, pool)
    assert chunk.fault == "empty_shard"
    (tmp_path / "pool").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=r"/pool: does not exist, but x was listed in it"):
        list(iter_chunks(x, pool))
