"""Pipes, sockets, devices and kernel files: rejected or skipped, never opened; reads may block."""

from __future__ import annotations

import os
import socket

import pytest

from dfn_ray.cli import run
from dfn_ray.config import Pool
from dfn_ray.errors import InputError
from dfn_ray.pool import inspect_pool, list_pool
from dfn_ray.resolving.prompts import class_names
from dfn_ray.schema import ShardFault
from dfn_ray.storage import open_uri, read_uri
from dfn_ray.testing.sample_pools import write_pool
from dfn_ray.uids.lookup import open_uid_list

pytestmark = pytest.mark.timeout(60)
KINDS = ("pipe", "link to a pipe", "socket", "device", "kernel's file", "folder")


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Creates a special file of a kind at a path."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    sockets = []

    def make(kind, path):
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "link to a pipe":
            os.mkfifo(tmp_path / "a pipe")
            path.symlink_to(tmp_path / "a pipe")
        elif kind == "socket":
            monkeypatch.chdir(path.parent)  # addresses of sockets have 108 characters
            sockets.append(socket.socket(socket.AF_UNIX))
            sockets[-1].bind(path.name)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "kernel's file":
            path.symlink_to("/proc/self/maps")
        else:
            path.mkdir()
        return str(path)

    yield make
    for item in sockets:
        item.close()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_as_one_file_must_be_one(make, tmp_path, capsys, kind):
    path = make(kind, tmp_path / "names.txt")
    assert run(["filter", path]) == 2
    assert run(["filter", f"file://{path}"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(InputError, match=r"uid list: .*names\.txt is a .*, not a regular file"):
        open_uid_list(path)
    for use in (open_uri, read_uri, lambda uri: class_names([uri])):
        with pytest.raises(InputError, match=r"names\.txt is a "):
            use(path)


def test_a_uid_list_that_is_a_pipe_ends_materialize_with_exit_code_2(
    make, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("RAY_ADDRESS")
    write_pool(tmp_path / "pool", shards=1, samples=1)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'run_uri = "{tmp_path}/run"\n[pool]\nuri = "{tmp_path}/pool"\n'
        '[[networks]]\nmodel = "ViT-B-32"\nrandom_weights_seed = 0\n'
    )
    uids = make("pipe", tmp_path / "uids.npy")
    assert run(["materialize", str(recipe), "--uids", uids, "--out", f"{tmp_path}/out"]) == 2
    assert "is a pipe" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_pool_leaves_special_files_out_and_counts_them(make, tmp_path, kind):
    write_pool(tmp_path / "pool", shards=1, samples=2)
    make(kind, tmp_path / "pool" / "special.tar")
    listing = list_pool(Pool(uri=(f"{tmp_path}/pool",)))
    assert [shard.name for shard in listing.shards] == ["00000.tar"]
    (line,) = listing.remarks.lines()
    assert line.startswith("pool: 1 pipes, sockets, devices or kernel files are named")
    assert line.endswith("special.tar")
    assert inspect_pool(Pool(uri=(f"{tmp_path}/pool",))).samples_seen == 2


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_special_file_that_a_pool_names_is_a_missing_shard_in_braces_and_refused_alone(
    make, tmp_path, kind
):
    write_pool(tmp_path / "pool", shards=1, samples=2)
    path = make(kind, tmp_path / "pool" / "00001.tar")
    listing = list_pool(Pool(uri=(f"{tmp_path}/pool/{{00000..00001}}.tar",)))
    assert [shard.fault for shard in listing.shards] == [None, ShardFault.MISSING]
    assert listing.remarks.lines()[-1].startswith("pool: 1 pipes, sockets, devices or kernel files")
    for uri in (path, f"file://{path}"):
        with pytest.raises(InputError, match=r"00001\.tar is a .*, not a regular file"):
            inspect_pool(Pool(uri=(uri,)))


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_class_folder_leaves_special_files_out_and_counts_them(make, tmp_path, kind):
    folder = tmp_path / "classes" / "cat"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(b"x")
    make(kind, folder / "2.jpg")
    pool = Pool(uri=(f"{tmp_path}/classes",), format="folder")
    assert (
        list_pool(pool)
        .remarks.lines()[-1]
        .startswith("pool: 1 pipes, sockets, devices or kernel files")
    )
    assert inspect_pool(pool).samples_seen == 1


def test_an_empty_shard_is_none_of_the_kernels_files(tmp_path):
    (tmp_path / "0.tar").write_bytes(b"")
    listing = list_pool(Pool(uri=(str(tmp_path),)))
    assert (len(listing.shards), listing.remarks.lines()) == (1, [])
