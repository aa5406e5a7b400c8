"""Unexpected HTTP responses: endless bodies, odd headers, redirects out of HTTP."""

from __future__ import annotations

import gzip
import itertools
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfn_ray.errors import DfnRayError, StorageAccessError, StorageError
from dfn_ray.storage import http_bodies, open_uri, read_uri, retries, scan, stat, version
from dfn_ray.storage.retries import Policy
from dfn_ray.testing.http_server import serve_http

MIB = 2**20
PIECE = b"x" * (64 * 1024)
ENDLESS = 512
"""Pieces of an "endless" body: 32 MiB, more than sockets buffer."""


@pytest.fixture
def server(quick):
    with serve_http({"a": b"12345"}) as server:
        yield server


def answer(status, *lines, body=()):
    """A response with these header lines, as bytes on the wire."""
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
def test_an_endless_body_is_read_no_further_than_requested(server, quick, first):
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
    monkeypatch.setattr(http_bodies, "WHOLE_LIMIT_BYTES", MIB)
    server.raw = lambda span: answer("200 OK", body=itertools.repeat(PIECE, ENDLESS))
    with pytest.raises(
        StorageAccessError, match="does not support ranges, and the file is larger than"
    ):
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
    """A response with the requested range, truncated after `most` bytes."""
    if span is None:
        return answer("200 OK", b"Content-Length: %d" % len(data), body=[data[:most]])
    start, end = (int(number) for number in span.removeprefix("bytes=").split("-"))
    stop = min(end + 1, start + most, len(data))
    line = f"Content-Range: bytes {start}-{stop - 1}/{len(data)}".encode()
    return answer("206 Partial Content", line, body=[data[start:stop]])


@pytest.mark.parametrize("most", [5000, 65_536, 100_000, MIB])
def test_truncated_ranges_are_continued(server, most):
    data = random.Random(0).randbytes(3 * MIB + 17)
    server.raw = lambda span: capped(span, data, most)
    assert read_uri(server.uri("a")) == data
    with open_uri(server.uri("a"), in_order=False) as file:
        file.seek(MIB + 3)
        assert file.read(MIB) == data[MIB + 3 : 2 * MIB + 3]
    assert stat(server.uri("a")).size_bytes == len(data)


@pytest.mark.parametrize("most", [0, 1, 100])
def test_a_server_that_returns_almost_nothing_of_a_range_ends_the_reading(server, quick, most):
    data = bytes(3 * MIB)
    server.raw = lambda span: capped(span, data, 65_536 if span == "bytes=0-65535" else most)
    error = failure_of(read_uri, server.uri("a"))
    assert type(error) is StorageError
    assert f"failed {quick.attempts} times" in str(error)
    assert len(server.requests) < 3 * quick.attempts


def test_listings_are_not_requested_from_web_servers(server):
    server.raw = lambda span: answer("200 OK", body=itertools.repeat(PIECE, ENDLESS))
    with pytest.raises(StorageAccessError, match="give the full URL of each file"):
        scan(server.uri("a"))
    assert server.sent_bytes == 0


WHOLE = random.Random(1).randbytes(3 * 10**5)
CLOSING = {
    "no length": [],
    "odd transfer coding": [b"Transfer-Encoding: identity"],
    "gzip": [b"Content-Encoding: gzip"],
}
"""Header lines of bodies that end with their connection."""


def closing(span, kind, data, end=None):
    """A response whose body ends with its connection, truncated at `end`."""
    if kind == "gzip":
        data = gzip.compress(data[:1000], 1) + gzip.compress(data[1000:], 1)
    return answer("200 OK", *CLOSING[kind], body=[data[:end]])


GZIP_MEMBER = len(gzip.compress(WHOLE[:1000], 1))


@pytest.mark.parametrize("kind", CLOSING)
@pytest.mark.parametrize("end", [0, 1, GZIP_MEMBER, len(WHOLE) // 2, -1])
def test_a_body_that_ends_with_its_connection_is_whole_once_it_came_twice(server, kind, end):
    for before in ([end], []):
        ends = iter(before)
        server.requests.clear()
        server.raw = lambda span, ends=ends: closing(span, kind, WHOLE, next(ends, None))
        same = read_uri(server.uri("a")) == WHOLE
        assert same
        assert len(server.requests) == len(before) + 2


@pytest.mark.parametrize("kind", CLOSING)
def test_bodies_that_end_with_their_connections_at_other_bytes_each_time_are_no_content(
    server, quick, kind
):
    contents = itertools.count(100_000)
    server.raw = lambda span: closing(span, kind, WHOLE[: next(contents)])
    error = failure_of(read_uri, server.uri("a"))
    assert type(error) is StorageError
    assert f"failed {quick.attempts} times" in str(error)
    assert "two downloads in a row differ: got 100,001 and 100,002 bytes" in str(error)
    bodies = itertools.count()
    server.raw = lambda span: closing(span, kind, b"%09d" % next(bodies) * 10**4)
    assert "two downloads in a row differ: got 90,000 and 90,000 bytes" in str(
        failure_of(read_uri, server.uri("a"))
    )


def test_a_body_whose_end_is_marked_is_fetched_once(server):
    chunked = b"%x\r\n" % len(WHOLE) + WHOLE + b"\r\n0\r\n\r\n"
    for line, body in (
        (b"Content-Length: %d" % len(WHOLE), WHOLE),
        (b"Transfer-Encoding: chunked", chunked),
    ):
        server.requests.clear()
        server.raw = lambda span, line=line, body=body: answer("200 OK", line, body=[body])
        same = read_uri(server.uri("a")) == WHOLE
        assert same
        assert len(server.requests) == 1


@pytest.mark.parametrize("kind", CLOSING)
@pytest.mark.parametrize("end", [0, GZIP_MEMBER, len(WHOLE) // 2, None])
def test_a_body_that_ends_with_its_connection_is_compared_with_the_size_of_an_earlier_range(
    server, quick, kind, end
):
    ends = [end]

    def raw(span):
        if span == "bytes=0-65535":
            return capped(span, WHOLE, MIB)
        return closing(span, kind, WHOLE, ends.pop() if ends else None)

    server.raw = raw
    same = read_uri(server.uri("a")) == WHOLE
    assert same
    assert len(server.requests) == (2 if end is None else 3)
    ends[:] = [end] * quick.attempts
    if end is not None:
        error = failure_of(read_uri, server.uri("a"))
        assert type(error) is StorageError
        assert f"failed {quick.attempts} times" in str(error)


DATES = [b"Fri, 27 Nov 2026 19:00:00 GMT", b"Fri, 27 Nov 2026 19:00:05 GMT"]


def dated(span, data, dates):
    return ranged(span, len(data), b"Last-Modified: " + next(dates), body=[part(span, data)])


def part(span, data):
    start, end = span.removeprefix("bytes=").split("-")
    return data[int(start) : int(end) + 1]


def test_mirrors_with_other_dates_of_the_last_change_have_one_file(server):
    dates = itertools.cycle(DATES)
    server.raw = lambda span: dated(span, WHOLE, dates)
    with open_uri(server.uri("a"), in_order=False) as file:
        pieces = [file.read(10**5) for _ in range(3)]
    same = b"".join(pieces) == WHOLE
    assert same
    assert stat(server.uri("a")).version is None
    assert version(server.uri("a")) == version(server.uri("a"))
    assert version(server.uri("a"), dated=True) != version(server.uri("a"), dated=True)


def test_a_changed_file_without_an_etag_is_reported_without_one(server):
    sizes = iter([len(WHOLE), len(WHOLE) - 1])
    dates = itertools.cycle(DATES)
    server.raw = lambda span: dated(span, WHOLE[: next(sizes)], dates)
    with open_uri(server.uri("a"), in_order=False) as file:
        file.seek(10**5)
        with pytest.raises(DfnRayError, match=r"299,999 bytes now, 300,000 bytes when"):
            file.read(10**5)


@pytest.mark.parametrize(
    "label",
    [
        "identity", "utf-8", "UTF-8", "utf8", "aws-chunked", "aws-chunked, identity", "binary", "",
        " , ",
    ],
)  # fmt: skip
def test_labels_that_encode_nothing_leave_ranges_and_whole_files_as_they_are(server, label):
    line = b"Content-Encoding: " + label.encode()
    server.raw = lambda span: ranged(span, len(WHOLE), line, body=[part(span, WHOLE)])
    with open_uri(server.uri("a"), in_order=False) as file:
        file.seek(2 * 10**5)
        assert file.read(1000) == WHOLE[200_000:201_000]
    length = b"Content-Length: %d" % len(WHOLE)
    server.raw = lambda span: answer("200 OK", line, length, body=[WHOLE])
    same = read_uri(server.uri("a")) == WHOLE
    assert same


def test_a_label_beside_gzip_leaves_it_gzip(server):
    packed = gzip.compress(WHOLE, 1)
    for lines in (
        [b"Content-Encoding: aws-chunked,gzip"],
        [b"Content-Encoding: gzip", b"Content-Encoding: utf-8"],
    ):
        lines.append(b"Content-Length: %d" % len(packed))
        server.raw = lambda span, lines=lines: answer("200 OK", *lines, body=[packed])
        same = read_uri(server.uri("a")) == WHOLE
        assert same


@pytest.mark.parametrize(
    "coding", ["br", "zstd", "deflate", "compress", "gzip, gzip", "x-unheard-of"]
)
def test_an_encoding_that_was_not_requested_is_rejected_by_name(server, coding):
    server.raw = lambda span: answer("200 OK", b"Content-Encoding: " + coding.encode(), body=[b"x"])
    with pytest.raises(
        StorageAccessError,
        match=f"the server sends it with Content-Encoding {coding}, which was not requested",
    ):
        read_uri(server.uri("a"))


ODD_NUMBERS = [b"\xc2\xb2", b"\xd9\xa3", b"9" * 5000, b"-1", b"1e3", b"nan", b"\xff", b"1_0", b"+5"]


@pytest.mark.parametrize("value", [*ODD_NUMBERS, b"Wed, 99 Foo 20266 25:61:61 GMT"])
def test_a_transient_fault_is_retried_whatever_retry_after_contains(server, value):
    answers = iter([answer("503 No", b"Retry-After: " + value)])

    def raw(span):
        return next(answers, None) or ranged(span, 5, body=[b"12345"])

    server.raw = raw
    assert read_uri(server.uri("a")) == b"12345"


@pytest.mark.parametrize("value", ODD_NUMBERS)
def test_an_invalid_content_range_or_length_is_ignored(server, value):
    """The range is ignored and the whole file requested; an invalid length counts as absent."""
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
        b"Retry-After", b"Content-Range", b"Content-Length", b"Content-Encoding", b"ETag",
        b"Last-Modified", b"Set-Cookie", b"Location", b"Content-Type", b"Transfer-Encoding",
        b"Date", b"Expires", b"Connection",
    ]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        [
            *ODD_NUMBERS, b"bytes 0-4/5", b"gzip", b'"\xed\xa0\x80"',
            b"a=b; Max-Age=\xc2\xb2; Expires=Feb 31", b"chunked", b"file:///etc/passwd", b"http://[",
            b"//\x7f", b"http://\xc2\xb2:\xd9\xa3/", b"",
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
