from __future__ import annotations

import sys
import time
import tracemalloc

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dfn_ray.config import Pool
from dfn_ray.errors import InputError
from dfn_ray.pool import Shard, list_shards
from dfn_ray.schema import ShardFault


@pytest.fixture
def folder(tmp_path):
    """Makes files of a given size below a folder."""

    def make(*names: str, size: int = 10):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(size))
        return str(tmp_path)

    return make


def listed(*uri: str) -> list[Shard]:
    return list_shards(Pool(uri=uri))


def names(*uri: str) -> list[str]:
    return [shard.name for shard in listed(*uri)]


def test_a_folder_gives_its_tars_and_parquets_at_any_depth_sorted(folder):
    root = folder("b.tar", "a.parquet", "x/c.tgz", "x/d.tar.gz", "notes.txt", "x/e.json")
    folder("._b.tar", ".writing-0-b.tar")
    assert listed(root) == [
        Shard(f"{root}/a.parquet", "a.parquet", 10),
        Shard(f"{root}/b.tar", "b.tar", 10),
        Shard(f"{root}/x/c.tgz", "x/c.tgz", 10),
        Shard(f"{root}/x/d.tar.gz", "x/d.tar.gz", 10),
    ]


def test_globs_match_one_level_or_with_two_stars_any(folder):
    root = folder("a.tar", "x/b.tar", "x/y/c.tar")
    assert names(f"{root}/*.tar") == ["a.tar"]
    assert names(f"{root}/*/*.tar") == ["x/b.tar"]
    assert names(f"{root}/**/*.tar") == ["a.tar", "x/b.tar", "x/y/c.tar"]
    assert names(f"{root}/x*/[bc].tar") == ["x/b.tar"]


def test_globs_and_folders_work_on_object_stores():
    store = fsspec.filesystem("memory")
    for name in ("a.tar", "x/b.tar", "x/b.parquet", "x/y/c.tar"):
        store.pipe_file(f"memory://globs/{name}", b"12")
    assert names("memory://globs/*.tar") == ["a.tar"]
    assert names("memory://globs/*/*") == ["x/b.tar"]
    assert names("memory://globs/**/*.tar") == ["a.tar", "x/b.tar", "x/y/c.tar"]
    assert listed("memory://globs/x") == [
        Shard("memory://globs/x/b.tar", "b.tar", 2),
        Shard("memory://globs/x/y/c.tar", "y/c.tar", 2),
    ]


def test_names_do_not_change_when_a_pool_moves(folder):
    root = folder("one/00000.tar", "one/00001.tar", "two/far/00000.tar", "two/far/00001.tar")
    for shape in ("{}", "{}/", "{}/*.tar", "{}/{{00000..00001}}.tar"):
        assert names(shape.format(f"{root}/one")) == ["00000.tar", "00001.tar"]
        assert names(shape.format(f"{root}/two/far")) == ["00000.tar", "00001.tar"]


def test_relative_paths_become_absolute(folder, monkeypatch):
    root = folder("00000.tar", "00001.tar")
    monkeypatch.chdir(root)
    assert [shard.uri for shard in listed("{00000..00001}.tar")] == [
        f"{root}/00000.tar",
        f"{root}/00001.tar",
    ]
    assert listed(".") == listed("*.tar") == listed(f"file://{root}")


def test_a_brace_member_that_is_not_there_is_a_missing_shard(folder):
    root = folder("00000.tar", "00002.tar")
    assert listed(f"{root}/{{00000..00002}}.tar")[1] == Shard(
        f"{root}/00001.tar", "00001.tar", 0, ShardFault.MISSING
    )


def test_braces_over_folders_take_the_shards_in_them(folder):
    root = folder("a/0.tar", "b/0.tar", "c/0.tar")
    assert names(f"{root}/{{a,b}}") == ["a/0.tar", "b/0.tar"]
    assert names(f"{root}/{{a,b}}/*.tar") == ["a/0.tar", "b/0.tar"]


def test_braces_list_their_folder_once_and_ask_for_no_shard(monkeypatch):
    store = fsspec.filesystem("memory")
    for number in range(50):
        store.pipe_file(f"memory://braces/{number:05d}.tar", b"12345")
    calls = []
    for verb in ("ls", "info", "exists", "open"):
        original = getattr(MemoryFileSystem, verb)

        def counted(self, path, *args, _original=original, _verb=verb, **kwargs):
            calls.append((_verb, path))
            return _original(self, path, *args, **kwargs)

        monkeypatch.setattr(MemoryFileSystem, verb, counted)
    shards = listed("memory://braces/{00000..00029}.tar", "memory://braces/{00030..00099}.tar")
    assert [shard.size_bytes for shard in shards] == [5] * 50 + [0] * 50
    assert len(calls) == 1


def test_a_list_of_files_in_one_folder_gives_each_of_them(folder):
    root = folder("0.tar", "1.tar", "2.tar")
    uris = tuple(f"{root}/{number}.tar" for number in range(3))
    assert [shard.uri for shard in listed(*uris)] == list(uris)


def test_a_sidecar_parquet_of_img2dataset_is_not_a_shard(folder):
    root = folder("00000.tar", "00000.parquet", "00001.tar.gz", "00001.parquet", "2.parquet")
    assert names(root) == names(f"{root}/*") == ["00000.tar", "00001.tar.gz", "2.parquet"]


def test_datacomp_metadata_is_not_a_shard(folder):
    root = folder("0a.parquet", "0a.npz", "images.parquet")
    assert names(root) == ["images.parquet"]


@pytest.mark.parametrize("shape", ["{}", "{}/*.tar", "{}/{{00000..00002}}.tar"])
def test_a_shard_without_stats_among_shards_that_have_them_is_unfinished(folder, shape):
    root = folder(*(f"{i:05d}.{e}" for i in range(3) for e in ("tar", "parquet")))
    assert {shard.fault for shard in listed(shape.format(root))} == {None}
    folder("00000_stats.json", "00002_stats.json")
    assert [shard.fault for shard in listed(shape.format(root))] == [
        None,
        ShardFault.UNFINISHED,
        None,
    ]


def test_stats_of_other_things_say_nothing_about_shards(folder):
    root = folder("00000.tar", "training_stats.json")
    assert listed(root)[0].fault is None


def test_a_pattern_for_nothing_says_what_was_looked_for_and_what_is_there(folder):
    root = folder("a.zip", "b/c.jpg", "0.parquet", "0.npz")
    for uri in (root, f"{root}/*.tar", f"{root}/{{0..3}}.tar", f"{root}/0.tar"):
        with pytest.raises(InputError, match=r"\*\.tar.*0\.npz, 0\.parquet, a\.zip, b") as caught:
            listed(uri)
        assert uri in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        listed(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere"):
        listed(str(tmp_path / "nowhere/*.tar"))


def test_one_absent_file_among_files_is_refused(folder):
    root = folder("0.tar", "1.tar")
    with pytest.raises(InputError, match=r"no shards at .*/2\.tar"):
        listed(f"{root}/0.tar", f"{root}/1.tar", f"{root}/2.tar")


def test_a_shard_named_twice_is_refused(folder):
    root = folder("00000.tar", "00001.tar")
    with pytest.raises(InputError, match=r"00001\.tar is named twice"):
        listed(root, f"{root}/{{00001..00002}}.tar")


def test_files_on_the_web_are_taken_at_their_word():
    assert listed("https://example.invalid/pool/{00000..00001}.tar") == [
        Shard(f"https://example.invalid/pool/{n}.tar", f"{n}.tar", 0) for n in ("00000", "00001")
    ]


def test_planning_is_fast_and_small():
    store = fsspec.filesystem("memory")
    for number in range(5000):
        store.pipe_file(f"/large/{number:08d}.tar", b"x")
    tracemalloc.start()
    begin = time.perf_counter()
    shards = listed("memory://large/{00000000..00004999}.tar")
    took_s = time.perf_counter() - begin
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(shards) == 5000
    assert took_s / 5000 < 1e-3  # tracing slows it down several times
    assert held / 5000 < 600
    assert sys.getsizeof(shards[0]) < 100
