"""Answers of web servers that no client expects: bodies without end, odd headers, redirects out of HTTP."""

from __future__ import annotations

import gzip
import itertools
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfn_ray.errors import DfnRayError, StorageAccessError, StorageError
from dfn_ray.storage import http as http_module
from dfn_ray.storage import open_uri, read_uri, retries, scan, stat
from dfn_ray.storage.retries import Policy
from dfn_ray.testing.http_faults import serve_http

MIB = 2**20
PIECE = b"x" * (64 * 1024)
ENDLESS = 512
"""Pieces of a body "without end": 32 MiB, which is more than sockets hold."""


@pytest.fixture
def server(quick):
    with serve_http({"a": b"12345"}) as server:
        yield server


def answer(status, *lines, body=()):
    """An answer with these header lines, as bytes on the wire."""
    head = [f"HTTP/1.1 {status}".encode(), *lines, b"Connection: close", b"", b""]
    return itertools.chain([b"\r\n".join(head)], body)


def ranged(span, size, *lines, body):
    start, end = span.removeprefix("bytes=").split("-")
    content_range = f"Content-Range: bytes {start}-{min(int(end), size - 1)}/{size}".encode()
    return answer("206 Partial Content", content_range, *lines, body=body)


def failure_of(use, uri):
    with pytest.raises(StorageError) as failure:
        use(uri)
    return failure.value


@pytest.mark.parametrize("first", [True, False], ids=["at opening", "later"])
def test_a_body_that_does_not_end_is_read_no_further_than_was_asked_for(server, quick, first):
    def raw(span):
        exact = not first and span == "bytes=0-65535"
        body = [PIECE] if exact else itertools.repeat(PIECE, ENDLESS)
        return ranged(span, 10 * MIB, body=body)

    server.raw = raw

    def read(uri):
        with open_uri(uri, in_order=False) as file:
            file.seek(MIB)
            file.read(1000)

    error = failure_of(read, server.uri("a"))
    assert type(error) is StorageError
    assert f"failed {quick.attempts} times" in str(error)
    assert server.sent_bytes < quick.attempts * 8 * MIB


def test_a_look_up_reads_no_body_that_does_not_end(server):
    server.raw = lambda span: answer("200 OK", body=itertools.repeat(PIECE, ENDLESS))
    assert stat(server.uri("a")).size_bytes == 0
    assert server.sent_bytes < 8 * MIB


def test_a_whole_file_without_length_is_read_no_further_than_the_limit(server, monkeypatch):
    monkeypatch.setattr(http_module, "WHOLE_LIMIT_BYTES", MIB)
    server.raw = lambda span: answer("200 OK", body=itertools.repeat(PIECE, ENDLESS))
    with pytest.raises(StorageAccessError, match="no ranges, and it is larger than"):
        read_uri(server.uri("a"))
    assert server.sent_bytes < 16 * MIB


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_file_that_is_longer_than_when_it_was_opened_is_read_no_further_than_that(server, packed):
    body = [gzip.compress(PIECE * ENDLESS)] if packed else itertools.repeat(PIECE, ENDLESS)
    lines = [b"Content-Encoding: gzip"] if packed else []

    def raw(span):
        if span == "bytes=0-65535":
            return ranged(span, MIB, body=[PIECE])
        return answer("200 OK", *lines, body=body)

    server.raw = raw
    with open_uri(server.uri("a"), in_order=False) as file:
        file.seek(MIB // 2)
        with pytest.raises(DfnRayError, match="changed while it was read") as failure:
            file.read(1000)
    assert type(failure.value).__name__ == "ShardChangedError"
    assert server.sent_bytes < 16 * MIB


def capped(span, data, most):
    """An answer with the range that is asked for, cut off after `most` bytes."""
    if span is None:
        return answer("200 OK", b"Content-Length: %d" % len(data), body=[data[:most]])
    start, end = (int(number) for number in span.removeprefix("bytes=").split("-"))
    stop = min(end + 1, start + most, len(data))
    line = f"Content-Range: bytes {start}-{stop - 1}/{len(data)}".encode()
    return answer("206 Partial Content", line, body=[data[start:stop]])


@pytest.mark.parametrize("most", [5000, 65_536, 100_000, MIB])
def test_ranges_that_a_server_cuts_off_are_asked_on_for(server, most):
    data = random.Random(0).randbytes(3 * MIB + 17)
    server.raw = lambda span: capped(span, data, most)
    assert read_uri(server.uri("a")) == data
    with open_uri(server.uri("a"), in_order=False) as file:
        file.seek(MIB + 3)
        assert file.read(MIB) == data[MIB + 3 : 2 * MIB + 3]
    assert stat(server.uri("a")).size_bytes == len(data)


@pytest.mark.parametrize("most", [0, 1, 100])
def test_a_server_that_gives_next_to_nothing_of_a_range_ends_the_reading(server, quick, most):
    data = bytes(3 * MIB)
    server.raw = lambda span: capped(span, data, 65_536 if span == "bytes=0-65535" else most)
    error = failure_of(read_uri, server.uri("a"))
    assert type(error) is StorageError
    assert f"failed {quick.attempts} times" in str(error)
    assert len(server.requests) < 3 * quick.attempts


def test_web_servers_are_not_asked_for_listings(server):
    server.raw = lambda span: answer("200 OK", body=itertools.repeat(PIECE, ENDLESS))
    with pytest.raises(StorageAccessError, match="name files in full"):
        scan(server.uri("a"))
    assert server.sent_bytes == 0


ODD_NUMBERS = [b"\xc2\xb2", b"\xd9\xa3", b"9" * 5000, b"-1", b"1e3", b"nan", b"\xff", b"1_0", b"+5"]


@pytest.mark.parametrize("value", [*ODD_NUMBERS, b"Wed, 99 Foo 20266 25:61:61 GMT"])
def test_a_fault_that_passes_passes_whatever_retry_after_says(server, value):
    answers = iter([answer("503 No", b"Retry-After: " + value)])

    def raw(span):
        return next(answers, None) or ranged(span, 5, body=[b"12345"])

    server.raw = raw
    assert read_uri(server.uri("a")) == b"12345"


@pytest.mark.parametrize("value", ODD_NUMBERS)
def test_an_odd_content_range_or_length_says_nothing_about_the_content(server, value):
    """A range is not believed, and the whole file asked for; no length is a length."""
    spans = [b"bytes 0-4/" + value, b"bytes " + value + b"-4/5", value]
    for span in spans:
        server.raw = lambda asked, span=span: (
            answer("206 Partial Content", b"Content-Range: " + span, body=[b"12345"])
            if asked
            else answer("200 OK", body=[b"12345"])
        )
        assert read_uri(server.uri("a")) == b"12345"
    server.raw = lambda asked: answer("200 OK", b"Content-Length: " + value, body=[b"12345"])
    assert type(failure_of(read_uri, server.uri("a"))) is StorageError


HEADERS = st.sampled_from(
    [
        b"Retry-After", b"Content-Range", b"Content-Length", b"Content-Encoding", b"ETag", b"Last-Modified",
        b"Set-Cookie", b"Location", b"Content-Type", b"Transfer-Encoding", b"Date", b"Expires", b"Connection",
    ]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        [
            *ODD_NUMBERS, b"bytes 0-4/5", b"gzip", b'"\xed\xa0\x80"', b"a=b; Max-Age=\xc2\xb2; Expires=Feb 31",
            b"chunked", b"file:///etc/passwd", b"http://[", b"//\x7f", b"http://\xc2\xb2:\xd9\xa3/", b"",
        ]
    ),
    st.binary(max_size=20).map(lambda data: data.translate(None, b"\r\n")),
)  # fmt: skip
STATUSES = st.sampled_from(
    ["200 OK", "206 P", "301 M", "302 \udcff", "416 R", "429 T", "503 S", "999 X"]
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(status=STATUSES, headers=st.lists(st.tuples(HEADERS, VALUES), max_size=3))
def test_no_header_makes_anything_else_than_content_or_an_error_of_the_store(
    server, monkeypatch, status, headers
):
    policy = Policy(attempts=2, doubtful_attempts=2, longest_wait_s=0, stall_s=0.3)
    monkeypatch.setattr(retries, "POLICY", policy)
    lines = [name + b": " + value for name, value in headers]
    head = b"\r\n".join([b"HTTP/1.1 " + status.encode("utf-8", "surrogateescape"), *lines])
    server.raw = lambda span: [head + b"\r\nConnection: close\r\n\r\n12345"]
    for use in (read_uri, stat):
        try:
            found = use(server.uri("a"))
        except StorageError as error:
            str(error).encode()
            continue
        assert isinstance(found, bytes) or str(found.version).encode()


@pytest.mark.parametrize(
    "target",
    ["file:///etc/hostname", "FILE:///etc/hostname", "ftp://host/a", "data:,12345", "s3://b/a", "http://["],
)  # fmt: skip
@pytest.mark.parametrize("status", ["301 M", "302 F", "307 T", "308 P"])
def test_a_redirect_out_of_http_is_something_that_the_user_can_change(server, target, status):
    server.raw = lambda span: answer(status, b"Location: " + target.encode(), b"Content-Length: 0")
    for use in (open_uri, read_uri, stat):
        assert isinstance(failure_of(use, server.uri("a")), StorageAccessError)


def test_redirects_in_a_circle_end(server):
    server.raw = lambda span: answer("302 F", b"Location: /a", b"Content-Length: 0")
    assert isinstance(failure_of(read_uri, server.uri("a")), StorageAccessError)
    assert len(server.requests) < 20
