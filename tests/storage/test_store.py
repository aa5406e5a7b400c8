from __future__ import annotations

import os
import uuid

import pytest

from dfn_ray.errors import InputError, MissingFileError, StorageError
from dfn_ray.storage import Store, open_uri, read_uri
from dfn_ray.storage.filesystems import storage_errors


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    uri = str(tmp_path / "s") if request.param == "disk" else f"memory://{uuid.uuid4().hex}"
    return Store(uri)


def test_what_is_written_is_read_listed_and_deleted(store):
    store.write("folder/b.bin", b"two")
    store.write("folder/a.bin", memoryview(b"one"))
    assert store.read("folder/a.bin") == b"one"
    assert [(f.uri.rsplit("/")[-1], f.size_bytes) for f in store.list("folder")] == [
        ("a.bin", 3),
        ("b.bin", 3),
    ]
    store.delete("folder/a.bin")
    store.delete("folder/a.bin")
    assert not store.exists("folder/a.bin")
    assert store.list("absent") == []


def test_a_file_that_a_disk_cannot_look_up_is_not_called_absent(tmp_path):
    store = Store(str(tmp_path))
    assert not store.exists("folder/a.bin")
    with pytest.raises(StorageError, match=r"cannot access it: .*File name too long") as failure:
        store.exists("x" * 300)
    assert not isinstance(failure.value, MissingFileError)


def test_writing_again_replaces_the_whole_file(store):
    store.write("x", b"a long first content")
    store.write("x", b"short")
    assert store.read("x") == b"short"


def test_a_stream_that_breaks_leaves_no_file_and_does_not_harm_the_old_one(tmp_path):
    store = Store(str(tmp_path))

    def pieces():
        yield b"half"
        raise RuntimeError("source died")

    with pytest.raises(RuntimeError, match="source died"):
        store.write_stream("f/x.npy", pieces())
    assert not store.exists("f/x.npy")
    store.write_stream("f/x.npy", [b"ab", b"cd"])
    with pytest.raises(RuntimeError, match="source died"):
        store.write_stream("f/x.npy", pieces())
    assert store.read("f/x.npy") == b"abcd"


def test_a_stream_is_written_beside_its_target_and_not_in_the_folder_for_temporary_files(
    tmp_path, monkeypatch
):
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    store, seen = Store(str(tmp_path / "s")), []

    def pieces():
        yield b"a" * 2**20
        seen.extend(path.parent for path in tmp_path.rglob("*") if path.is_file())
        yield b"b"

    store.write_stream("f/x.npy", pieces())
    assert seen == [tmp_path / "s" / "f"]
    assert [path.name for path in (tmp_path / "s" / "f").iterdir()] == ["x.npy"]


def test_a_process_that_dies_while_it_writes_a_stream_leaves_nothing_under_the_name(tmp_path):
    store = Store(str(tmp_path))
    store.write("old", b"whole")

    def pieces():
        yield b"a" * 2**20
        os._exit(9)

    for name in ("new", "old"):
        child = os.fork()
        if not child:
            store.write_stream(name, pieces())
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not store.exists("new")
    assert store.read("old") == b"whole"
    assert [file.name for file in store.list()] == ["old"]


def test_a_write_that_breaks_leaves_no_file_on_disk(tmp_path, monkeypatch):
    store = Store(str(tmp_path))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        store.write("x", b"data")
    assert list(tmp_path.iterdir()) == []


def test_half_written_files_are_not_listed_and_are_removed_but_for_those_of_later_writers(tmp_path):
    for writer in (0, 9, 10, 11, 100):
        with Store(str(tmp_path), writer)._temporary_file("scores/x", [b"half"]) as aside:
            os.link(aside, f"{aside}-of-{writer}")
    store = Store(str(tmp_path), 10)
    assert store.list("scores") == []
    store.remove_leftovers("scores")
    left = sorted(path.name.rpartition("-")[2] for path in (tmp_path / "scores").iterdir())
    assert left == ["100", "11"]


def test_missing_and_forbidden_files_are_reported_with_their_uri(tmp_path):
    with pytest.raises(StorageError, match="nothing-here: not found"):
        Store(str(tmp_path)).read("nothing-here")
    with pytest.raises(StorageError, match="not found"):
        open_uri(str(tmp_path / "absent"))
    with pytest.raises(InputError, match="the scheme foo:// is not supported"):
        read_uri("foo://bucket/x")


@pytest.mark.parametrize("package", ["httpx", "google"])
def test_exceptions_of_other_stores_clients_are_reported_in_a_line(package):
    kind = type("ConnectError", (Exception,), {"__module__": f"{package}.errors"})
    with (
        pytest.raises(StorageError, match=r"hf://x: cannot list it: no route"),
        storage_errors("hf://x", "list"),
    ):
        raise kind("no route")
    with pytest.raises(RuntimeError), storage_errors("hf://x", "list"):
        raise RuntimeError("a mistake of ours")
