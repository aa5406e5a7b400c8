"""Walks of trees: every folder is listed, by its path, or is an error that names it."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from dfn_ray.errors import StorageAccessError, StorageError
from dfn_ray.storage import files_below, first_dangling_link, scan, walk


def below(root: Path | str) -> list[str]:
    return [file.uri[len(str(root)) + 1 :] for file in files_below(str(root))]


@contextmanager
def rights_of_nobody():
    """Makes permissions apply to root as to other users."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_links_to_folders_and_files_are_followed_under_the_names_they_are_reached_by(tmp_path):
    for name in ("pool/a/0", "disk/1", "disk/sub/2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1234")
    (tmp_path / "pool/b").symlink_to(tmp_path / "disk")
    (tmp_path / "pool/c").symlink_to("b")
    (tmp_path / "pool/3").symlink_to(tmp_path / "disk/1")
    (tmp_path / "root").symlink_to("pool")
    names = ["3", "a/0", "b/1", "b/sub/2", "c/1", "c/sub/2"]
    assert below(tmp_path / "pool") == below(tmp_path / "root") == names
    assert {file.size_bytes for file in files_below(str(tmp_path / "pool"))} == {4}


def test_links_that_lead_back_up_are_cut_wherever_they_were_reached_from(tmp_path):
    for name in ("pool/x/0", "other/y/1", "pool/x/z/2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "pool/x/self").symlink_to(".")
    (tmp_path / "pool/x/z/root").symlink_to(tmp_path / "pool")
    (tmp_path / "pool/x/above").symlink_to(tmp_path)
    (tmp_path / "pool/out").symlink_to(tmp_path / "other")
    (tmp_path / "other/y/back").symlink_to(tmp_path / "pool/x")
    (tmp_path / "other/y/up").symlink_to(tmp_path / "other")
    (tmp_path / "pool/ring").symlink_to("ring")
    # By `back` the folder x is reached once more, by another path; from there, all lead up.
    names = ["out/y/1", "out/y/back/0", "out/y/back/z/2", "x/0", "x/z/2"]
    assert below(tmp_path / "pool") == names
    loops = []

    def visit(folder, _):
        loops.extend(f"{folder.uri}/{name}"[len(str(tmp_path)) + 1 :] for name in folder.loops)
        return dict.fromkeys(folder.folders)

    walk(str(tmp_path / "pool"), visit, None)
    assert sorted(loops) == [
        *(f"pool/out/y/back/{name}" for name in ("above", "self", "z/root")),
        "pool/out/y/up",
        "pool/ring",
        *(f"pool/x/{name}" for name in ("above", "self", "z/root")),
    ]


def test_links_that_lead_to_each_other_are_followed_once(tmp_path):
    for name in ("pool/x/0", "other/1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "pool/x/there").symlink_to(tmp_path / "other")
    (tmp_path / "other/back").symlink_to(tmp_path / "pool/x")
    assert below(tmp_path / "pool") == ["x/0", "x/there/1"]


def test_what_is_no_file_is_not_listed_as_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("nothing")
    folder = scan(str(tmp_path))
    assert folder is not None
    assert (dict(folder.files), folder.special, folder.dangling) == ({}, ("pipe",), ("gone",))


def test_a_link_that_leads_through_a_file_costs_its_folder_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file/below")
    folder = scan(str(tmp_path))
    assert folder is not None
    assert (list(folder.files), folder.dangling) == (["file"], ("link",))


def test_the_first_dangling_link_on_a_path_is_found(tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "gone").symlink_to("nothing")
    (tmp_path / "through").symlink_to("file/below")
    (tmp_path / "over").symlink_to("gone")
    (tmp_path / "here").symlink_to(".")
    for name in ("gone", "through", "over"):
        for path in (name, f"{name}/x", f"here/{name}/x/0.tar"):
            found = first_dangling_link(f"{tmp_path}/{path}")
            assert found == f"{tmp_path}/{path.partition(name)[0]}{name}"
    for path in ("file", "here", "here/file", "absent", "absent/gone", "file/below"):
        assert first_dangling_link(f"{tmp_path}/{path}") is None
    assert first_dangling_link("memory://gone/x") is None


@pytest.mark.parametrize("name", ["b", "b/deep", "."])
def test_a_folder_without_rights_is_an_error_that_names_it(public_folder, name):
    (public_folder / "b/deep").mkdir(parents=True)
    (public_folder / "a").mkdir()
    locked = public_folder / name
    locked.chmod(0)
    try:
        with (
            rights_of_nobody(),
            pytest.raises(StorageAccessError, match=f"{locked}: no permission to list"),
        ):
            files_below(str(public_folder))
    finally:
        locked.chmod(0o755)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_a_disk_that_fails_while_a_folder_is_listed_is_an_error_that_names_it(
    tmp_path, monkeypatch, number
):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    scandir = os.scandir

    def failing(path):
        if str(path).endswith("/b"):
            raise OSError(number, os.strerror(number), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(StorageError, match=f"{tmp_path}/b: cannot list it"):
        files_below(str(tmp_path))


def test_a_folder_that_a_store_cannot_list_is_an_error(monkeypatch):
    fs = fsspec.filesystem("memory")
    for name in ("a/0", "b/1"):
        fs.pipe_file(f"/failing/{name}", b"1")
    ls = MemoryFileSystem.ls

    def failing(self, path, *args, **kwargs):
        if path.endswith("/b"):
            raise OSError(errno.EIO, "connection lost")
        return ls(self, path, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "ls", failing)
    monkeypatch.setattr(MemoryFileSystem, "find", AbstractFileSystem.find)  # as most stores
    with pytest.raises(
        StorageError, match=r"memory://failing/b: cannot list it: .*connection lost"
    ):
        files_below("memory://failing")


def test_a_folder_that_vanishes_while_it_is_listed_and_an_absent_one_are_passed_over(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    visited = []

    def visit(folder, _):
        visited.append(folder.uri)
        if (tmp_path / "b").exists():
            (tmp_path / "b").rmdir()
        return dict.fromkeys(folder.folders)

    walk(str(tmp_path), visit, None)
    assert visited == [str(tmp_path), f"{tmp_path}/a"]
    assert scan(f"{tmp_path}/b") is None
    assert files_below(f"{tmp_path}/b") == files_below("memory://nowhere") == []


@pytest.mark.parametrize("find", [MemoryFileSystem.find, AbstractFileSystem.find])
def test_object_stores_are_walked_like_folders_with_only_what_is_entered(monkeypatch, find):
    monkeypatch.setattr(MemoryFileSystem, "find", find)
    fs = fsspec.filesystem("memory")
    for name in ("0", "x/1", "x/y/z/2", "_t/3"):
        fs.pipe_file(f"/tree/{name}", b"12")
    visited = {}

    def visit(folder, depth):
        visited[folder.uri] = (depth, list(folder.files))
        return {name: depth + 1 for name in folder.folders if name != "_t"}

    walk("memory://tree/", visit, 0)
    assert visited == {
        "memory://tree": (0, ["0"]),
        "memory://tree/x": (1, ["1"]),
        "memory://tree/x/y": (2, []),
        "memory://tree/x/y/z": (3, ["2"]),
    }
