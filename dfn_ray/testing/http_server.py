"""A web server with in-memory files and the faults of real ones, on request and over sockets.

with serve_http({"00000.tar": data}) as server:
    server.plan(Fault.STATUS_503, times=2, from_byte=8 * 2**20)
    read_uri(server.uri("00000.tar"))
"""

from __future__ import annotations

import gzip
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

STALL_S = 20.0
"""A stall ends after this time even if the client keeps waiting."""


class Fault(StrEnum):
    """A fault of a request."""

    STATUS_403 = "403"
    STATUS_404 = "404"
    STATUS_410 = "410"
    STATUS_429 = "429"
    STATUS_500 = "500"
    STATUS_503 = "503"
    RESET = "reset in mid-body"
    STALL = "stall in mid-body"
    CUT = "body cut in the middle"
    OTHER_RANGE = "another range than the one asked for"
    NO_LENGTH = "no Content-Length"
    NO_RANGES = "no ranges"
    GZIP = "Content-Encoding: gzip"
    CUT_GZIP = "Content-Encoding: gzip without length, cut in the middle"
    CUT_NO_LENGTH = "no Content-Length, cut in the middle"
    CHANGED = "another content of the same size"


READABLE = (Fault.NO_LENGTH, Fault.NO_RANGES, Fault.GZIP)
"""Ways to answer that are not faults: the whole file can be read."""


@dataclass
class HttpServer:
    """A running server. `files` by name; `requests` lists every request: method, path and range."""

    files: dict[str, bytes]
    endpoint: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    encodings: set[str | None] = field(default_factory=set)
    """`Accept-Encoding` of all requests; a server may compress its answers to those that allow
    it."""
    answers: Callable[[str], tuple[int, bytes] | None] | None = None
    """Called first, by path: status and JSON of an answer that is not a file, like a hub's."""
    raw: Callable[[str | None], Iterable[bytes]] | None = None
    """Bytes to send unchanged instead of any answer, by the requested range; the connection then
    ends."""
    sent_bytes: int = 0
    """Bytes of raw answers that clients accepted: sockets buffer some MiB more than was read."""
    packed: dict[str, bytes] = field(default_factory=dict)
    """The compressed files, once a fault needs them."""
    _fault: Fault | None = None
    _left: int = 0
    _from_byte: int = 0
    _only: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def uri(self, name: str) -> str:
        """The URI of a file."""
        return f"{self.endpoint}/{name}"

    def plan(
        self, fault: Fault, *, times: int = 10**9, from_byte: int = 0, only: str | None = None
    ) -> None:
        """Sets a fault for the next requests of bytes at or after `from_byte`.

        Applies to the file `only`, or to any.
        """
        if fault in (Fault.GZIP, Fault.CUT_GZIP):  # before the requests, which do not wait for long
            self.packed = {name: gzip.compress(data, 1) for name, data in self.files.items()}
        self._fault, self._left, self._from_byte, self._only = fault, times, from_byte, only

    def recover(self) -> None:
        """Serves all requests again."""
        self._fault = None

    def next_fault(self, path: str, start: int) -> Fault | None:
        """The fault of a request for bytes from `start` of the file at a path."""
        with self._lock:
            if self._fault is None or self._left < 1 or start < self._from_byte:
                return None
            if self._only is not None and not path.endswith(f"/{self._only}"):
                return None
            self._left -= 1
            return self._fault


@contextmanager
def serve_http(files: Mapping[str, bytes]) -> Iterator[HttpServer]:
    """A server on loopback, in threads, for the duration of the context."""
    state = HttpServer(dict(files))

    class Handler(_Handler):
        server_state = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: HttpServer

    def handle(self) -> None:
        with suppress(
            ConnectionError
        ):  # a client that leaves during an answer resets its kept-alive connection
            super().handle()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        state = self.server_state
        path = unquote(urlsplit(self.path).path)
        span = self.headers.get("Range")
        state.requests.append((self.command, self.path, span))
        state.encodings.add(self.headers.get("Accept-Encoding"))
        if state.raw is not None:
            with suppress(ConnectionError):
                self._send_raw(state.raw(span))
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", span or "")
        start = int(match[1]) if match else 0
        if state.answers is not None and (given := state.answers(self.path)) is not None:
            code = {"X-Error-Code": "RepoNotFound"} if given[0] == 404 else {}
            self._send(given[0], given[1], {"Content-Type": "application/json"} | code)
            return
        fault = state.next_fault(path, start)
        if fault is not None and fault.value.isdigit():
            self._send(int(fault), b"no", {})
            return
        name = next((n for n in state.files if path.endswith(f"/{n}")), None)
        if name is None:
            self._send(404, b"not found", {"X-Error-Code": "EntryNotFound"})
            return
        with suppress(ConnectionError):
            self._send_file(name, match, fault)

    def _send_raw(self, pieces: Iterable[bytes]) -> None:
        self.close_connection = True
        for piece in pieces:
            self.wfile.write(piece)
            self.server_state.sent_bytes += len(piece)

    def _send_file(self, name: str, match: re.Match[str] | None, fault: Fault | None) -> None:
        data = self.server_state.files[name]
        version = '"2"' if fault is Fault.CHANGED else '"1"'
        headers = {"ETag": version, "Accept-Ranges": "bytes"}
        if fault in (Fault.GZIP, Fault.CUT_GZIP):
            packed = self.server_state.packed[name]
            headers["Content-Encoding"] = "gzip"
            if fault is Fault.GZIP:
                self._send(200, packed, headers)
            else:
                self._send(200, packed[: len(packed) // 2], headers, length=None)
            return
        if fault in (Fault.NO_LENGTH, Fault.CUT_NO_LENGTH):
            body = data if fault is Fault.NO_LENGTH else data[: len(data) // 2]
            self._send(200, body, headers, length=None)
            return
        if match is None or fault is Fault.NO_RANGES:
            self._send_body(200, data, headers, fault)
            return
        start = int(match[1])
        end = min(int(match[2]) + 1 if match[2] else len(data), len(data))
        if start >= len(data):
            self._send(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
            return
        if fault is Fault.OTHER_RANGE:
            start, end = max(start - 1, 0), end - 1
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._send_body(206, data[start:end], headers, fault)

    def _send_body(
        self, status: int, body: bytes, headers: dict[str, str], fault: Fault | None
    ) -> None:
        if fault not in (Fault.RESET, Fault.STALL, Fault.CUT):
            self._send(status, body, headers)
            return
        self._send(status, body[: len(body) // 2], headers, length=len(body))
        self.wfile.flush()
        if fault is Fault.STALL:
            self.connection.settimeout(STALL_S)
            with suppress(OSError):  # until the client goes away
                self.connection.recv(1)
        elif fault is Fault.RESET:
            # With a linger time of 0, closing sends RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, length: int | None = -1
    ) -> None:
        """Sends an answer; with length None it ends with the connection."""
        self.send_response(status, HTTPStatus(status).phrase)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body) if length < 0 else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing."""
