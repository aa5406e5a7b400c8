"""hf:// against a stand-in hub that fails as planned."""

from __future__ import annotations

import json
import random

import fsspec
import pytest

from dfn_ray.errors import MissingFileError, StorageAccessError, StorageError
from dfn_ray.storage import files_below, is_confirmed_missing, open_uri, read_uri, stat
from dfn_ray.testing.http_server import Fault, serve_http

pytest.importorskip("huggingface_hub")

DATA = random.Random(1).randbytes(9 * 2**20)
POOL = "hf://datasets/org/pool"


@pytest.fixture
def hub(quick, monkeypatch):
    """A hub with one data set; `hub.fail` makes its API fail for a number of requests."""
    tree = [{"type": "file", "path": "00000.tar", "size": len(DATA), "oid": "0" * 40}]
    failures: list[int] = []

    def answers(path):
        if not path.startswith("/api/"):
            return None
        if failures:
            return failures.pop(), b"{}"
        if path.startswith("/api/datasets/org/pool/tree/"):
            return 200, json.dumps(tree).encode()
        if path.startswith("/api/datasets/org/pool"):
            return 200, json.dumps({"id": "org/pool", "sha": "0" * 40}).encode()
        return 404, b"{}"

    with serve_http({"00000.tar": DATA}) as server:
        server.answers = answers
        server.fail = lambda status, times: failures.extend([status] * times)
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": server.endpoint, "token": False})
        yield server


def test_a_request_to_a_busy_hub_is_retried(hub):
    hub.fail(429, 2)
    with open_uri(f"{POOL}/00000.tar") as file:
        hub.plan(Fault.STATUS_429, times=2, from_byte=4 * 2**20)
        assert file.read() == DATA
    hub.plan(Fault.STATUS_429, times=2)
    assert read_uri(f"{POOL}/00000.tar") == DATA


def test_a_hub_that_stays_busy_is_a_storage_error(hub, quick):
    hub.fail(429, 1000)
    with pytest.raises(StorageError, match=f"failed {quick.attempts} times") as failure:
        open_uri(f"{POOL}/00000.tar")
    assert type(failure.value) is StorageError


def test_a_file_is_missing_if_the_hub_reports_it_and_the_folder_does_not_list_it(hub):
    with pytest.raises(MissingFileError):
        open_uri(f"{POOL}/00001.tar")
    assert is_confirmed_missing(f"{POOL}/00001.tar")
    hub.plan(Fault.STATUS_404)
    with pytest.raises(MissingFileError):
        open_uri(f"{POOL}/00000.tar")
    assert not is_confirmed_missing(f"{POOL}/00000.tar")


def test_an_absent_repository_implies_nothing_about_a_file(hub):
    with pytest.raises(StorageAccessError):
        open_uri("hf://datasets/org/other/00000.tar")
    with pytest.raises(StorageError):
        is_confirmed_missing("hf://datasets/org/other/00000.tar")


def test_a_hub_lists_after_a_busy_moment(hub):
    hub.fail(500, 1)
    assert [file.uri for file in files_below(POOL)] == [f"{POOL}/00000.tar"]
    assert stat(f"{POOL}/00000.tar").size_bytes == len(DATA)
