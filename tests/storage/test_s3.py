"""S3 under faults, against a real server behind the fault proxy."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import subprocess
import sys
import time

import fsspec
import pytest
from botocore.exceptions import IncompleteReadError

from dfn_ray.errors import (
    MissingFileError,
    ShardChangedError,
    StorageAccessError,
    StorageError,
)
from dfn_ray.storage import (
    READ_AHEAD_BYTES,
    Store,
    files_below,
    filesystem,
    is_confirmed_missing,
    open_uri,
    read_uri,
    shared_environment,
    stat,
    version_of,
)
from dfn_ray.storage import s3 as s3_module
from dfn_ray.storage.retries import Policy
from dfn_ray.testing.s3_proxy import Fault, Faults


@pytest.fixture
def store(s3, fresh_s3, proxy, tmp_path):
    return Store(f"s3://runs/{tmp_path.name}")


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr("dfn_ray.storage.retries.POLICY", Policy(longest_wait_s=0))


def bytes_of(size, seed=0):
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("seed", range(2))
def test_a_walk_through_resets_and_short_reads_loses_and_doubles_no_byte(
    store, proxy, seed, no_waiting
):
    data = bytes_of(3 * READ_AHEAD_BYTES + 1234, seed)
    store.write("a.tar", data)
    proxy.reset()
    proxy.faults = Faults(share=0.5, seed=seed, kinds=(Fault.RESET, Fault.SHORT, Fault.SLOW_DOWN))
    pieces = []
    with open_uri(store.uri_of("a.tar")) as file:
        while piece := file.read(700_001):
            pieces.append(piece)
    assert b"".join(pieces) == data
    assert proxy.faulty > 0


ENDS = pytest.mark.parametrize("end", ["head_bytes", "tail_bytes"])


@ENDS
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 5000])
def test_a_file_opened_with_its_head_or_tail_reads_like_any_other(
    store, proxy, size, end, no_waiting
):
    data = bytes_of(size)
    store.write("x", data)
    proxy.reset()
    with store.open("x", **{end: 100}) as file:
        assert file.seek(0, os.SEEK_END) == size
        file.seek(max(0, size - 100) if end == "tail_bytes" else 0)
        assert file.read(100) == (data[-100:] if end == "tail_bytes" else data[:100])
        # rclone refuses to give the last 100 bytes of a shorter object, S3 does not.
        counts = {kind: n for (kind, _), n in proxy.counts.items()}
        assert counts == {"GET": 1} or size < (100 if end == "tail_bytes" else 1)
        for start, stop in (
            (0, size),
            (10, 20),
            (50, 150),
            (size - 150, size - 50),
            (size - 50, size - 1),
            (20, 20),
        ):
            file.seek(max(0, start))
            assert file.read(max(0, stop - max(0, start))) == data[max(0, start) : max(0, stop)]
        with store.open("x") as other:
            assert file.version == other.version is not None


@ENDS
def test_a_file_opened_with_its_end_is_read_whole_through_faults(store, proxy, end, no_waiting):
    data = bytes_of(300_000)
    store.write("x", data)
    proxy.faults = Faults(share=0.5, seed=1, kinds=(Fault.RESET, Fault.SHORT, Fault.SLOW_DOWN))
    for _ in range(4):
        with store.open("x", **{end: 1000}) as file:
            assert file.read() == data
    assert proxy.faulty > 0


@ENDS
def test_a_file_opened_with_its_end_is_not_spliced_from_two_versions(store, end):
    store.write("x", bytes_of(5000, seed=0))
    with store.open("x", **{end: 100}) as file:
        store.write("x", bytes_of(5000, seed=1))
        with pytest.raises(ShardChangedError):
            file.read(1000)


@ENDS
def test_an_absent_file_opened_with_its_end_is_missing(store, end):
    store.write("y", b"content")
    with pytest.raises(MissingFileError):
        store.open("x", **{end: 100})


def test_a_reader_holds_little_more_than_one_block(store):
    store.write("a.tar", bytes_of(4 * READ_AHEAD_BYTES))
    with open_uri(store.uri_of("a.tar")) as file:
        for _ in range(64):
            file.read(2**19)
            assert len(file.cache.cache) <= READ_AHEAD_BYTES + 2**19


def test_a_stall_is_ended_by_the_read_timeout(store, proxy, no_waiting):
    store.write("x", b"content")
    proxy.reset()
    proxy.faults = Faults(share=0.5, seed=3, kinds=(Fault.STALL,), operations=("GET",))
    start = time.monotonic()
    assert all(store.read("x") == b"content" for _ in range(4))
    stalls = proxy.counts["GET", Fault.STALL]
    assert stalls > 0
    assert time.monotonic() - start < 4 * stalls + 4


def test_a_put_whose_answer_was_lost_is_done_once(store, proxy, no_waiting):
    proxy.faults = Faults(
        share=0.5, kinds=(Fault.LOST_ANSWER,), operations=("PUT", "POST", "DELETE")
    )
    for number in range(8):
        store.write(f"f/{number}", f"content {number}".encode())
        store.write_stream(f"g/{number}", [b"piece", str(number).encode()])
    store.delete("f/7")
    proxy.faults = Faults()
    assert proxy.counts["PUT", Fault.LOST_ANSWER] > 0
    assert proxy.counts["POST", Fault.LOST_ANSWER] > 0
    assert [file.name for file in store.list("f")] == [str(number) for number in range(7)]
    assert [store.read(f"f/{n}") for n in range(7)] == [f"content {n}".encode() for n in range(7)]
    assert [store.read(f"g/{n}") for n in range(8)] == [f"piece{n}".encode() for n in range(8)]


def test_a_request_is_tried_ten_times_in_all_and_no_library_multiplies_that(
    store, proxy, no_waiting
):
    store.write("x", b"content")
    for kind in (Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.SHORT):
        proxy.reset()
        proxy.faults = Faults(share=1.0, kinds=(kind,), operations=("GET",))
        with pytest.raises(StorageError, match=f"get_object failed {Policy().attempts} times"):
            store.read("x")
        assert proxy.counts["GET", kind] == Policy().attempts


def test_a_refusal_at_first_contact_is_final(store, proxy):
    proxy.faults = Faults(share=1.0, kinds=(Fault.DENIED,), operations=("PUT",))
    with pytest.raises(
        StorageError, match=r"no permission for put_object in bucket runs .*s3:PutObject"
    ):
        store.write("x", b"content")
    assert proxy.requests == 1


def test_a_refusal_where_requests_were_served_before_is_tried_again(store, proxy, no_waiting):
    for number in range(20):
        store.write(f"{number}", b"content")
    proxy.reset()
    proxy.faults = Faults(share=0.3, seed=1, kinds=(Fault.DENIED,), operations=("PUT",))
    for number in range(20):
        store.write(f"{number}", b"content")
    assert proxy.faulty > 0
    proxy.reset()
    proxy.faults = Faults(share=1.0, kinds=(Fault.DENIED,), operations=("PUT",))
    with pytest.raises(StorageError, match="403 AccessDenied"):
        store.write("x", b"content")
    assert proxy.requests == Policy().doubtful_attempts


def test_expired_credentials_are_final_at_any_time(store, proxy):
    store.write("x", b"content")
    proxy.reset()
    proxy.faults = Faults(share=1.0, kinds=(Fault.EXPIRED,))
    with pytest.raises(StorageError, match=r"have expired .*AWS_SESSION_TOKEN"):
        store.write("x", b"content")
    assert proxy.requests == 1


def test_a_stream_to_a_missing_bucket_makes_no_bucket(s3, fresh_s3):
    with pytest.raises(StorageError, match="there is no bucket not-there"):
        Store("s3://not-there/x").write_stream("a", [b"1"])
    assert not (s3.folder / "not-there").exists()


def test_profile_requester_pays_and_anonymous_come_from_the_environment(s3, proxy, tmp_path):
    Store("s3://pools").write("profile.txt", b"content")
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[mine]\naws_access_key_id = {s3.key}\naws_secret_access_key = {s3.secret}\n"
    )
    environment = {k: v for k, v in os.environ.items() if "KEY" not in k} | {
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_PROFILE": "mine",
        "FSSPEC_S3_REQUESTER_PAYS": "true",
    }
    read = (
        "from dfn_ray.storage import read_uri; from dfn_ray.storage.s3 import s3\n"
        "assert s3().req_kw == {'RequestPayer': 'requester'}, s3().req_kw\n"
        "print(s3().anon, read_uri('s3://pools/profile.txt').decode())"
    )

    def run(**more):
        return subprocess.run(
            [sys.executable, "-c", read],
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )

    assert run().stdout == "False content\n"
    # Its word for a request without a signature.
    assert "UnsupportedAlgorithm" in run(FSSPEC_S3_ANON="true").stderr
    assert run(FSSPEC_S3_ANON="false").stdout == "False content\n"


def test_workers_are_handed_where_the_store_is_but_no_credentials(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://key:secret@127.0.0.1:9000")
    monkeypatch.setenv("FSSPEC_S3_ANON", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("FSSPEC_S3_SECRET", "secret")
    assert shared_environment() == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
        "FSSPEC_S3_ANON": "true",
    }


def test_a_pickled_store_holds_no_credentials(monkeypatch, fresh_s3):
    monkeypatch.setitem(fsspec.config.conf, "s3", {"key": "me", "secret": "recognisable"})
    store = Store("s3://runs/x")
    assert filesystem(store.uri).secret == "recognisable"
    assert b"recognisable" not in pickle.dumps((store, filesystem(store.uri)))


def test_an_object_that_changes_while_it_is_read_is_not_spliced(store):
    old, new = bytes_of(2 * READ_AHEAD_BYTES, 1), bytes_of(2 * READ_AHEAD_BYTES, 2)
    store.write("a.tar", old)
    with open_uri(store.uri_of("a.tar")) as file:
        assert version_of(file) == stat(store.uri_of("a.tar")).version is not None
        assert file.read(5) == old[:5]
        store.write("a.tar", new)
        file.seek(2 * READ_AHEAD_BYTES - 9)
        with pytest.raises(ShardChangedError, match=r"s3://runs/.*a\.tar: changed while it was"):
            file.read(5)
    assert version_of(open_uri(store.uri_of("a.tar"))) == store.list()[0].version


def test_the_listing_and_the_open_file_say_the_same_version(store):
    store.write("a.tar", b"content")
    (listed,) = store.list()
    with open_uri(listed.uri) as file:
        assert version_of(file) == listed.version == stat(listed.uri).version


def test_keys_may_hold_what_would_be_a_query_in_a_url(store):
    names = ["lang=en&year=2020.tar", "a?b=1", "a#b", "a%20b", "a+b c", "token=1&sig=2"]
    for name in names:
        store.write(name, name.encode())
    assert {file.name for file in store.list()} == set(names)
    for file in store.list():
        assert read_uri(file.uri) == file.name.encode()
        with open_uri(file.uri) as opened:
            assert opened.read() == file.name.encode()


def test_a_scheme_in_capitals_is_the_same_store(store):
    store.write("x", b"content")
    loud = store.uri.replace("s3://", "S3://")
    assert read_uri(f"{loud}/x") == b"content"
    assert Store(loud) == store
    assert [file.uri for file in files_below(loud)] == [f"{loud}/x"]
    with open_uri(f"{loud}/x") as file:
        assert file.read() == b"content"


def test_an_object_is_missing_for_sure_only_where_its_folder_still_lists(store):
    store.write("a", b"1")
    for uri in (store.uri_of("b"), store.uri_of("no/such/folder/b")):
        with pytest.raises(MissingFileError):
            open_uri(uri)
    assert is_confirmed_missing(store.uri_of("b"))
    assert not is_confirmed_missing(store.uri_of("a"))
    assert not is_confirmed_missing(store.uri_of("no/such/folder/b"))


def test_an_absent_bucket_implies_nothing_about_its_objects(s3, fresh_s3):
    for use in (open_uri, read_uri, stat, is_confirmed_missing):
        with pytest.raises(StorageAccessError, match="there is no bucket not-there"):
            use("s3://not-there/x/a.tar")
    with pytest.raises(StorageAccessError, match="there is no bucket not-there"):
        Store("s3://not-there/x").exists("run.json")


@pytest.mark.parametrize("kind", [Fault.INTERNAL_ERROR, Fault.DENIED])
@pytest.mark.parametrize("name", ["there", "absent"])
def test_an_object_is_absent_only_if_the_store_reports_it(store, proxy, no_waiting, kind, name):
    store.write("there", b"content")
    assert (store.exists("there"), store.exists("absent")) == (True, False)
    proxy.reset()
    proxy.faults = Faults(share=1.0, kinds=(kind,))
    with pytest.raises(StorageError) as failure:
        store.exists(name)
    assert not isinstance(failure.value, MissingFileError)


def test_a_store_that_still_fails_and_one_that_refuses_have_codes_of_their_own(
    store, proxy, no_waiting
):
    store.write("x", b"content")
    for kind, code in ((Fault.SLOW_DOWN, 1), (Fault.DENIED, 2), (Fault.EXPIRED, 2)):
        proxy.reset()
        proxy.faults = Faults(share=1.0, kinds=(kind,))
        for use in (read_uri, open_uri, stat, is_confirmed_missing):
            with pytest.raises(StorageError) as failure:
                use(store.uri_of("x"))
            assert failure.value.exit_code == code, (kind, use)
            assert not isinstance(failure.value, MissingFileError)


@pytest.mark.parametrize(
    ("asked", "announced", "most"), [("bytes=10-19", None, 10), (None, 7, 7), (None, None, 50)]
)
def test_a_body_is_read_no_further_than_to_the_first_byte_that_is_too_many(
    monkeypatch, asked, announced, most
):
    monkeypatch.setattr(s3_module, "UNANNOUNCED_LIMIT_BYTES", 50)
    monkeypatch.setattr(s3_module, "_PIECE_BYTES", 4)

    class Endless:
        given = closed = 0

        async def read(self, count=-1):
            assert count > 0, "all of a body that has no end"
            self.given += count
            return b"x" * count

        def close(self):
            self.closed = 1

    body = Endless()
    answer = {"Body": body} | ({} if announced is None else {"ContentLength": announced})
    with pytest.raises(IncompleteReadError):
        asyncio.run(s3_module._whole(answer, asked))
    assert most < body.given <= most + 4
    assert body.closed


def test_a_question_for_a_file_is_one_request(s3, proxy):
    store = Store("s3://runs/question")
    store.write("there", b"x")
    store.write("empty", b"")
    proxy.reset()
    assert store.exists("there")
    assert store.exists("empty")
    assert not store.exists("absent")
    assert {operation: n for (operation, _), n in proxy.counts.items()} == {"GET": 3}
