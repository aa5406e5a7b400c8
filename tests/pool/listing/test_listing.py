from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import time
import tracemalloc

import fsspec
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dfn_ray.config import Pool
from dfn_ray.errors import DfnRayError, InputError, StorageAccessError
from dfn_ray.pool import (
    Shard,
    iter_chunks,
    list_pool,
    list_shards,
    listing_notes,
    listing_table,
    require_outside_pool,
    shards_of_listing,
)
from dfn_ray.run import parquet_bytes
from dfn_ray.schema import ShardFault
from dfn_ray.storage import Store, open_uri
from dfn_ray.testing.sample_pools import TarBuilder


@pytest.fixture
def folder(tmp_path):
    """Creates files of a given size below a folder."""

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


@pytest.mark.parametrize("scheme", ["local", "s3"])
def test_a_brace_member_with_a_dot_may_be_a_folder(request, tmp_path, scheme):
    root = f"{tmp_path}/pool"
    if scheme == "s3":
        request.getfixturevalue("s3")
        request.getfixturevalue("fresh_s3")
        root = f"s3://pools/{tmp_path.name}"
    for name in ("cc3m/0.tar", "laion.v1/0.tar", "laion.v1/sub/1.tar"):
        Store(root).write(name, b"1")
    found = list_shards(Pool(uri=(f"{root}/{{cc3m,laion.v1,gone.v2}}",)))
    assert [(shard.name, shard.fault) for shard in found] == [
        ("cc3m/0.tar", None),
        ("gone.v2", ShardFault.MISSING),
        ("laion.v1/0.tar", None),
        ("laion.v1/sub/1.tar", None),
    ]
    inside = Pool(uri=(f"{root}/{{cc3m,laion.v1}}",))
    for run in ("laion.v1/run", "cc3m/run"):
        with pytest.raises(InputError, match="lies in the pool"):
            require_outside_pool(inside, f"{root}/{run}", setting="run_uri")
    require_outside_pool(inside, f"{root}/run.v1", setting="run_uri")


@pytest.mark.parametrize("uri", ["", " ", "file:", "file://", "local://"])
def test_a_uri_that_names_nothing_is_not_the_folder_of_the_process(uri, tmp_path, monkeypatch):
    (tmp_path / "0.tar").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is empty; set it to a path"):
        list_pool(Pool(uri=(uri,)))
    assert len(list_shards(Pool(uri=(".",)))) == 1


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
    with pytest.raises(InputError, match=r"00001\.tar is matched twice"):
        listed(root, f"{root}/{{00001..00002}}.tar")


def test_files_on_the_web_are_taken_at_their_word():
    assert listed("https://example.invalid/pool/{00000..00001}.tar") == [
        Shard(f"https://example.invalid/pool/{n}.tar", f"{n}.tar", 0) for n in ("00000", "00001")
    ]


@pytest.mark.parametrize("query", ["?download=true", "?in=a/b&n=1"])
def test_a_question_mark_begins_a_query_on_the_web(query):
    names = [f"{n}.tar{query}" for n in ("00000", "00001")]
    (single,) = listed(f"https://example.invalid/pool/00000.tar{query}")
    assert single.uri == f"https://example.invalid/pool/00000.tar{query}"
    assert listed(f"https://example.invalid/pool/{{00000..00001}}.tar{query}") == [
        Shard(f"https://example.invalid/pool/{name}", name, 0) for name in names
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


def notes(*uri: str) -> list[str]:
    return listing_notes(list_pool(Pool(uri=uri)))


def test_hidden_folders_and_runs_below_a_pool_are_not_read_and_this_is_said(folder):
    root = folder("0.tar", ".Trash/files/0.tar", "_temporary/0.tar", "x/.snapshot/0.tar", "x/1.tar")
    folder("runs/1/run.json", "runs/1/pool.parquet", "runs/1/subset/part.parquet")
    assert names(root) == names(f"{root}/**") == ["0.tar", "x/1.tar"]
    assert names(f"{root}/*/*.tar") == ["x/1.tar"]
    assert [line.partition(" (")[0] for line in notes(root)] == [
        "pool: 3 hidden folders",
        "pool: 1 folders contain a run",
    ]
    assert notes(root)[1].endswith(f"the first is {root}/runs/1")
    assert notes(f"{root}/*.tar") == []


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (".Trash", ["files/0.tar"]),
        (".Trash/files/*.tar", ["0.tar"]),
        (".Tr*/**/*.tar", [".Trash/files/0.tar"]),
        ("_*/*.tar", ["_temporary/0.tar"]),
        ("{_temporary,.Trash}/**", [".Trash/files/0.tar", "_temporary/0.tar"]),
        ("runs/1/subset", ["part.parquet"]),
        ("runs/*/subset/*", ["1/subset/part.parquet"]),
        ("**/subset/*", ["runs/1/subset/part.parquet"]),
    ],
)
def test_hidden_folders_and_folders_of_a_run_are_read_where_they_are_named(folder, uri, expected):
    root = folder(".Trash/files/0.tar", "_temporary/0.tar")
    folder("runs/1/run.json", "runs/1/pool.parquet", "runs/1/subset/part.parquet")
    assert names(f"{root}/{uri}") == expected


@pytest.mark.parametrize("shape", ["{}", "{}/", "{}/*", "{}/**/*.parquet", "{}/*/*.parquet"])
def test_a_run_is_no_pool_but_its_subset_is(folder, shape):
    root = folder("run.json", "pool.parquet", "subset/part.parquet")
    with pytest.raises(InputError, match=f"is a run .*use {root}/subset"):
        listed(shape.format(root))
    with pytest.raises(InputError, match=f"use {root}/subset"):
        list_shards(Pool(uri=(root,), format="folder"))
    assert names(f"{root}/subset") == ["part.parquet"]


def test_the_rules_for_folders_hold_on_object_stores():
    store = fsspec.filesystem("memory")
    for name in ("0.tar", ".t/0.tar", "x/_t/0.tar", "run/run.json", "run/subset/1.parquet"):
        store.pipe_file(f"memory://rules/{name}", b"12")
    assert names("memory://rules") == ["0.tar"]
    assert names("memory://rules/*/subset/*") == ["run/subset/1.parquet"]
    assert len(notes("memory://rules")) == 2


def test_endings_are_read_in_any_case_and_those_that_only_look_like_shards_are_counted(folder):
    root = folder("0.tar", "1.TAR", "2.Tar.GZ", "3.PARQUET", "1.parquet", "notes.txt", "a.json")
    folder("4.tar.xz", "5.tar.ZST", "6.tbz2", "7.zip", "x/8.parquet.gz", "9.arrow", "a.tar.json")
    folder("0.tar.md5", "0.idx", "0.tar.part")
    assert names(root) == ["0.tar", "1.TAR", "2.Tar.GZ", "3.PARQUET"]
    (line,) = notes(root)
    assert line.startswith("pool: 7 files look like shards but are not read")
    assert line.endswith(f"the first is {root}/0.tar.part")
    assert notes(f"{root}/*.tar") == []
    with pytest.raises(InputError, match="1 files look like shards but are not read"):
        listed(f"{root}/x")


UNREAD = (
    *(
        "1.tar.gz.part",
        "2.tgz.part",
        "3.tar.gz.tmp",
        "f.tgz.tmp",
        "4.tar~",
        "5.tar.crdownload",
        "d.tar.download",
    ),
    *(
        "c.tar.aria2",
        "6.tar.1",
        "g.tar.gz.1",
        "7.tar.bak",
        "8.tar.gz.gpg",
        "h.tar.zst.part",
        "j.TAR.XZ",
        "e.tar.lz4",
    ),
    *(
        "k.tar (1)",
        "l.tar.partaa",
        "m.parquet.incomplete",
        "n.tfrecord-00000-of-00010",
        "o.mds.zstd",
        "p.pq",
        "q.tar.zst",
    ),
)
HIDDEN = (".9.tar", ".b.parquet", ".i.tar.Ab3dEf", "._0.tar", ".writing-0-0.tar", ".r.zip.part")
ABOUT_SHARDS = (
    *(
        "0.tar.json",
        "0.tar.md5",
        "0.tar.sha256",
        "0.tar.sha256sum",
        "0.tar.idx",
        "0.tar.index",
        "0.tar.gz.asc",
    ),
    *(
        ".0.parquet.crc",
        "0.tar.meta",
        "0.tar.csv",
        "0.tar.lock",
        "0_stats.json",
        "0.npy",
        "0.tarball",
        "tar",
        "README.md",
    ),
)


@pytest.mark.parametrize("where", ["local", "memory"])
def test_files_that_are_shards_but_for_what_follows_or_a_dot_before_are_all_counted(
    tmp_path, where
):
    root = str(tmp_path) if where == "local" else f"memory://{tmp_path.name}-{where}"
    for name in ("0.tar", "_a.tar", *UNREAD, *HIDDEN, *ABOUT_SHARDS):
        Store(root).write(f"x/{name}", b"1")
    for uri in (root, f"{root}/*/*", f"{root}/x/*"):
        other, hidden = notes(uri)
        assert other.startswith(f"pool: {len(UNREAD)} files look like shards but are not read")
        assert hidden.startswith(f"pool: {len(HIDDEN)} files are named like shards but hidden")
        assert [name.rpartition("/")[2] for name in names(uri)] == ["0.tar", "_a.tar"]
    (hidden,) = notes(f"{root}/x/*.tar")
    assert hidden.startswith("pool: 3 files")


@pytest.mark.parametrize("name", UNREAD)
def test_each_ending_behind_a_shards_is_said(folder, name):
    (line,) = notes(folder("0.tar", name))
    assert line.endswith(f"the first is {folder()}/{name}")


@pytest.mark.parametrize("name", HIDDEN)
def test_each_hidden_shard_is_said_and_read_where_it_is_named(folder, name):
    root = folder("0.tar", name)
    (line,) = notes(root)
    assert line.endswith(f"the first is {root}/{name}")
    assert notes(f"{root}/{{0.tar,{name}}}") == []


@pytest.mark.parametrize("name", ABOUT_SHARDS)
def test_what_stands_beside_a_shard_and_is_about_it_is_not_said(folder, name):
    assert notes(folder("0.tar", name)) == []


def test_links_are_followed_and_two_paths_to_one_shard_are_both_read_and_said(folder, tmp_path):
    folder("pool/d0/0.tar", "disk/1.tar", "disk/sub/2.tar")
    root = tmp_path / "pool"
    (root / "d1").symlink_to(tmp_path / "disk")
    assert names(str(root)) == ["d0/0.tar", "d1/1.tar", "d1/sub/2.tar"]
    assert names(f"{root}/*/*.tar") == ["d0/0.tar", "d1/1.tar"]
    assert notes(str(root)) == []
    (root / "d2").symlink_to("d1")
    (root / "3.tar").symlink_to("d0/0.tar")
    (root / "d0/up").symlink_to("..")
    assert names(str(root)) == [
        *("3.tar", "d0/0.tar", "d1/1.tar", "d1/sub/2.tar", "d2/1.tar", "d2/sub/2.tar"),
    ]
    same, loop = sorted(notes(str(root)), key=lambda line: "links point" in line)
    assert same.startswith("pool: 3 shards are read twice")
    assert loop.startswith("pool: 1 links point back")
    (tmp_path / "other").symlink_to(root)
    line = notes(f"{root}/d0/0.tar", f"{tmp_path}/other/d0")[-1]
    assert line.startswith("pool: 1 shards are read twice")


def test_a_dangling_link_is_a_missing_shard_and_a_pipe_is_none(folder, tmp_path):
    root = folder("0.tar")
    (tmp_path / "1.tar").symlink_to("nowhere.tar")
    os.mkfifo(tmp_path / "2.tar")
    assert [(shard.name, shard.fault) for shard in listed(root)] == [
        ("0.tar", None),
        ("1.tar", ShardFault.MISSING),
    ]
    assert notes(root)[0].startswith("pool: 1 pipes, sockets, devices")


@pytest.mark.parametrize("link", ["d1", "d1.v2", "d1.tar", "d1.json"])
@pytest.mark.parametrize("target", ["/mnt/not_mounted", "file/below"])
def test_a_folders_dangling_link_is_said_where_a_wildcard_meets_it(folder, tmp_path, link, target):
    root = folder("pool/d0/0.tar", "pool/file", "pool/0.tar") + "/pool"
    (tmp_path / "pool" / link).symlink_to(target)
    (tmp_path / "pool/.hidden").symlink_to("nothing")
    globs = [root, f"{root}/**"] if not link.endswith(".tar") else []
    for uri in (*globs, f"{root}/*/*.tar", f"{root}/d*/0.tar", f"{root}/**/d?*/*.tar"):
        assert f"{root}/d0/0.tar" in [shard.uri for shard in listed(uri)]
        (line,) = notes(uri)
        assert line.startswith("pool: 1 links are dangling")
        leads_to = target if target.startswith("/") else f"{root}/{target}"
        assert line.endswith(f"the first is {root}/{link}, a link to {leads_to}")
    assert notes(f"{root}/d0/*.tar") == notes(f"{root}/0*") == []


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "{d0,d1}/*.tar",
            "{d0,d1}",
            "{d0,d1}/**",
            "{d0,d1}/{0..1}.tar",
            "{d0,d1}/x/*.tar",
            "{d0,d1.v2}",
        ),
        *(
            "d1",
            "d1/*.tar",
            "d1/{0..3}.tar",
            "d1/x/0.tar",
            "*/in/*.tar",
            "**/in/*.tar",
            "{d0,d[1]}/in/*.tar",
        ),
        *("{d0,here/d1}/*.tar", "{d0,over}/*.tar"),
    ],
)
def test_a_folders_dangling_link_is_an_error_where_it_is_named(folder, tmp_path, pattern):
    root = folder("pool/d0/0.tar", "pool/d0/1.tar", "pool/d0/x/2.tar", "pool/d[1]/0.tar") + "/pool"
    for name in ("d1", "d1.v2", "d0/in"):
        (tmp_path / "pool" / name).symlink_to("/mnt/not_mounted")
    (tmp_path / "pool/here").symlink_to(".")
    (tmp_path / "pool/over").symlink_to("d1")
    message = (
        r"pool/\S+: a link to /mnt/not_mounted, which does not exist; mount .* or remove the link"
    )
    with pytest.raises(StorageAccessError, match=message):
        listed(f"{root}/{pattern}")


@pytest.mark.parametrize("where", ["local", "memory"])
@pytest.mark.parametrize("pattern", ["{d0,d1}", "{d0,d1}/*.tar", "{d0,d1}/**/*.tar"])
def test_folders_that_a_pattern_names_and_that_are_absent_are_said(tmp_path, where, pattern):
    root = str(tmp_path) if where == "local" else f"memory://{tmp_path.name}-{where}"
    Store(root).write("d0/0.tar", b"1")
    assert names(f"{root}/{pattern}") == ["d0/0.tar"]
    assert notes(f"{root}/{pattern}") == [
        "pool: 1 folders that pool.uri names do not exist; none of their shards are counted; "
        f"the first is {root}/d1"
    ]


def test_shards_whose_names_are_not_utf8_are_read_under_names_that_can_be_said(tmp_path):
    tar = TarBuilder().sample("a", image=b"i", caption="c").getvalue()
    raw = os.fsencode(tmp_path)
    os.mkdir(raw + b"/d\xfc")
    for name in (b"caf\xe9.tar", b"caf\\xe9.tar", b"d\xfc/plain.tar", b"ok.tar"):
        with open(raw + b"/" + name, "wb") as file:
            file.write(tar)
    pool = Pool(uri=(str(tmp_path),))
    shards = list_shards(pool)
    assert [shard.name for shard in shards] == [
        *("caf\\x5cxe9.tar", "caf\\xe9.tar", "d\\xfc/plain.tar", "ok.tar"),
    ]
    stored = pq.read_table(io.BytesIO(parquet_bytes(listing_table(shards))))
    assert list(shards_of_listing(stored)) == shards
    rows = [
        row
        for shard in shards_of_listing(stored)
        for chunk, table in iter_chunks(shard, pool)
        for row in table.to_pylist()
        if json.dumps(chunk.to_json())
    ]
    assert [row["image"] for row in rows] == [b"i"] * 4
    assert len({row["uid"] for row in rows}) == 4
    os.remove(raw + b"/caf\xe9.tar")
    with pytest.raises(DfnRayError) as caught:
        open_uri(shards[1].opened_at)
    assert str(caught.value).encode()


@pytest.mark.parametrize("name", ["br[1]ack", "q?uest", "br{a,b}ce", "st*r", "dou::ble", "o{pen"])
def test_a_path_that_exists_as_it_is_written_is_no_pattern(folder, tmp_path, monkeypatch, name):
    folder(f"{name}/0.tar", f"{name}/x/1.tar", f"{name}.tar", "br1ack/9.tar", "bra::ce/9.tar")
    root = str(tmp_path)
    assert names(f"{root}/{name}") == names(f"file://{root}/{name}/") == ["0.tar", "x/1.tar"]
    assert names(f"{root}/{name}.tar") == [f"{name}.tar"]
    assert names(f"{root}/{name}/*.tar") == names(f"{root}/{name}/{{0..0}}.tar") == ["0.tar"]
    monkeypatch.chdir(tmp_path)
    assert names(name) == ["0.tar", "x/1.tar"]
    shard = listed(f"{root}/{name}/0.tar")[0]
    with open_uri(shard.opened_at) as file:
        assert file.read() == bytes(10)


def test_a_key_that_looks_like_a_pattern_is_found_when_the_pattern_finds_nothing():
    fsspec.filesystem("memory").pipe_file("memory://odd/br[1]ack/0.tar", b"12")
    assert names("memory://odd/br[1]ack") == ["0.tar"]


def test_a_pattern_for_nothing_says_how_names_that_look_like_one_are_written(folder):
    root = folder("br[1]ack/0.tar")
    with pytest.raises(InputError, match=r"put it in brackets: .*\[\[\]"):
        listed(f"{root}/b?[2]ack")
    assert names(f"{root}/br[[]1]*/0.tar") == ["br[1]ack/0.tar"]


def test_chained_stores_are_no_paths(folder):
    root = folder("0.tar")
    with pytest.raises(InputError, match="the scheme simplecache::file:// is not supported"):
        listed(f"simplecache::file://{root}")


def test_folders_that_braces_name_but_are_absent_are_said(folder):
    root = folder("a/0.tar", "a/1.tar")
    assert [shard.fault for shard in listed(f"{root}/{{a,b}}/0.tar")] == [None, "missing_shard"]
    assert notes(f"{root}/{{a,b}}/0.tar")[0].endswith(f"the first is {root}/b")


def test_shards_of_an_object_store_carry_its_version_of_them(s3, fresh_s3, tmp_path):
    for name in ("0.tar", "x/1.tar"):
        Store(f"s3://pools/{tmp_path.name}").write(name, name.encode())
    root = f"s3://pools/{tmp_path.name}"
    expected = [hashlib.md5(name).hexdigest() for name in (b"0.tar", b"x/1.tar")]
    for uris in ((root,), (f"{root}/**",), (f"{root}/{{0,x/1}}.tar",)):
        assert [shard.version for shard in listed(*uris)] == expected
    assert listed(f"{root}/0.tar")[0].version == listed(root)[0].version
