"""Image folders: a class folder is a shard, its samples the image files in the order of their names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dfn_ray.config import Pool
from dfn_ray.errors import InputError, ShardChangedError
from dfn_ray.pool import derive_uid, folder, iter_chunks, list_shards, read_rows
from dfn_ray.storage import Store, files_below, read_uri


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
    ".cache/x.jpg": b"x",
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
    assert [c.first_row for c, _ in iter_chunks(shard, pool, skip={0, 8})] == [4]
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
    monkeypatch.setattr(
        folder, "files_below", lambda uri: _and_remove(files_below(uri), tmp_path / "x/a.jpg")
    )
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


def _and_remove(files: list, path: Path) -> list:
    path.unlink()
    return files


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
