"""Reading over HTTP from a real server that fails as planned."""

from __future__ import annotations

import random

import pytest

from dfn_ray.errors import (
    InputError,
    MissingFileError,
    ShardChangedError,
    StorageAccessError,
    StorageError,
)
from dfn_ray.storage import (
    READ_AHEAD_BYTES,
    Store,
    http_bodies,
    is_confirmed_missing,
    open_uri,
    read_uri,
    stat,
    version_of,
)
from dfn_ray.testing.http_server import READABLE, Fault, serve_http

SIZE = READ_AHEAD_BYTES + 700_001
DATA = random.Random(1).randbytes(SIZE)
MIDDLE = 6 * 2**20
TRANSIENT = (
    Fault.STATUS_429, Fault.STATUS_500, Fault.STATUS_503, Fault.RESET, Fault.STALL, Fault.CUT,
    Fault.OTHER_RANGE, Fault.CUT_GZIP,
)  # fmt: skip


@pytest.fixture
def server(quick):
    with serve_http({"a.tar": DATA, "small.bin": b"12345", "empty": b""}) as server:
        yield server


def read_all(uri, *, in_order=True):
    pieces = []
    with open_uri(uri, in_order=in_order) as file:
        while piece := file.read(3 * 2**20):
            pieces.append(piece)
    return b"".join(pieces)


def test_no_request_asks_for_compressed_bytes(server):
    """A compressing server has neither length nor ranges: faults would cost full downloads."""
    assert read_all(server.uri("small.bin")) == read_uri(server.uri("small.bin")) == b"12345"
    stat(server.uri("small.bin"))
    assert server.encodings == {"identity"}


@pytest.mark.parametrize("from_byte", [0, MIDDLE])
@pytest.mark.parametrize("fault", [*TRANSIENT, Fault.STATUS_403])
def test_a_fault_that_passes_loses_and_doubles_no_byte(server, fault, from_byte):
    server.plan(fault, times=1, from_byte=from_byte)
    same = read_all(server.uri("a.tar"), in_order=False) == DATA
    assert same  # without a comparison of megabytes in the report


@pytest.mark.parametrize("from_byte", [0, MIDDLE])
@pytest.mark.parametrize("fault", READABLE)
def test_servers_without_ranges_or_lengths_or_with_compression_are_read_right(
    server, fault, from_byte
):
    server.plan(fault, from_byte=from_byte)
    same = read_all(server.uri("a.tar"), in_order=False) == DATA
    assert same  # without a comparison of megabytes in the report
    with open_uri(server.uri("a.tar")) as file:
        assert file.seek(0, 2) == SIZE
        file.seek(SIZE - 5)
        assert file.read() == DATA[-5:]
        file.seek(3)
        assert file.read(4) == DATA[3:7]


@pytest.mark.parametrize("from_byte", [0, MIDDLE])
@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_fault_that_stays_is_a_storage_error_after_all_attempts(server, quick, fault, from_byte):
    if fault is Fault.OTHER_RANGE and from_byte == 0:
        from_byte = 1  # the range before the first byte is the first one again
    server.plan(fault, from_byte=from_byte)
    with pytest.raises(StorageError, match=f"failed {quick.attempts} times") as failure:
        read_all(server.uri("a.tar"), in_order=False)
    assert type(failure.value) is StorageError
    assert failure.value.exit_code == 1


@pytest.mark.parametrize("from_byte", [0, MIDDLE])
def test_no_right_is_something_that_the_user_can_change(server, from_byte):
    server.plan(Fault.STATUS_403, from_byte=from_byte)
    with pytest.raises(
        StorageAccessError, match="403 Forbidden; check credentials and permissions"
    ):
        read_all(server.uri("a.tar"), in_order=False)


@pytest.mark.parametrize("fault", [Fault.STATUS_404, Fault.STATUS_410])
def test_only_404_and_410_say_that_a_file_is_missing(server, fault):
    uri = server.uri("a.tar")
    server.plan(fault)
    for use in (open_uri, read_uri, stat):
        with pytest.raises(MissingFileError, match="not found"):
            use(uri)
    assert is_confirmed_missing(uri)
    assert not Store(server.endpoint).exists("a.tar")
    server.plan(fault, times=0)
    assert not is_confirmed_missing(uri)
    assert Store(server.endpoint).exists("a.tar")


@pytest.mark.parametrize(
    "fault", [Fault.STATUS_500, Fault.STATUS_503, Fault.STATUS_403, Fault.RESET]
)
def test_a_failing_server_implies_nothing_about_its_files(server, fault):
    server.plan(fault)
    for use in (stat, is_confirmed_missing, lambda uri: Store(server.endpoint).exists("a.tar")):
        with pytest.raises(StorageError) as failure:
            use(server.uri("a.tar"))
        assert not isinstance(failure.value, MissingFileError)


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9/x.tar", "http://no-such-host.invalid/x.tar"], ids=["refused", "dns"]
)
def test_a_server_that_is_not_reached_is_a_storage_error(quick, uri):
    for use in (open_uri, read_uri, stat):
        with pytest.raises(StorageError, match=r"failed \d times") as failure:
            use(uri)
        assert type(failure.value) is StorageError


@pytest.mark.parametrize("uri", ["http://", "http://127.0.0.1:x/a.tar"])
def test_a_malformed_url_is_something_that_the_user_can_change(quick, uri):
    with pytest.raises(InputError if uri == "http://" else StorageAccessError):
        read_uri(uri)


def test_a_file_that_changes_while_it_is_read_is_not_spliced(server):
    server.plan(Fault.CHANGED, from_byte=MIDDLE)
    with pytest.raises(ShardChangedError, match=r"changed while it was read.*ETag 2"):
        read_all(server.uri("a.tar"), in_order=False)


def test_a_file_has_the_version_and_size_that_its_reads_are_of(server):
    with open_uri(server.uri("a.tar")) as file:
        assert (version_of(file), file.seek(0, 2)) == ("1", SIZE)
    assert stat(server.uri("a.tar")).version == "1"
    assert stat(server.uri("a.tar")).size_bytes == SIZE


def test_small_and_empty_files_and_queries_are_read_with_few_requests(server):
    assert read_uri(server.uri("small.bin?download=true")) == b"12345"
    assert len(server.requests) == 1
    assert read_uri(server.uri("empty")) == b""
    assert read_uri(server.uri("small.bin").replace("http", "HTTP")) == b"12345"


def test_a_file_above_the_limit_on_a_server_without_ranges_is_refused(server, monkeypatch):
    monkeypatch.setattr(http_bodies, "WHOLE_LIMIT_BYTES", SIZE - 1)
    for fault in READABLE:
        server.plan(fault)
        with pytest.raises(
            StorageAccessError, match=r"does not support ranges, and the file is larger than"
        ):
            open_uri(server.uri("a.tar"))


def test_what_is_fetched_whole_lies_on_disk_once_it_is_larger_than_a_block(server):
    server.plan(Fault.NO_RANGES)
    with open_uri(server.uri("a.tar")) as file:
        assert file._source._whole._rolled


def test_a_cut_that_nothing_announces_passes(server):
    server.plan(Fault.CUT_NO_LENGTH, times=1)
    same = read_all(server.uri("a.tar"), in_order=False) == DATA
    assert same
    server.plan(Fault.CUT_NO_LENGTH, times=1, from_byte=MIDDLE)
    same = read_all(server.uri("a.tar"), in_order=False) == DATA
    assert same


def test_a_cut_after_a_range_stated_the_size_is_a_storage_error_after_all_attempts(server, quick):
    server.plan(Fault.CUT_NO_LENGTH, from_byte=MIDDLE)
    with pytest.raises(StorageError, match=f"failed {quick.attempts} times") as failure:
        read_all(server.uri("a.tar"), in_order=False)
    assert type(failure.value) is StorageError
