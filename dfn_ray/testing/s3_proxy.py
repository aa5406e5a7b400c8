"""A proxy before an S3 server that injects S3's faults into a share of the requests, by a seed.

    with serve_s3(folder, ["pools"]) as server, fault_proxy(server.endpoint) as proxy:
        proxy.faults = Faults(share=0.2, seed=1)
        ...                                  # with AWS_ENDPOINT_URL=proxy.endpoint
        print(proxy.summary())

The fault of a request depends on the seed, on the request and on how often it was repeated, not on
the order in which requests arrive. A request and its answer have a connection of their own; signed
headers pass unchanged.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

STALL_S = 120.0
"""A stall ends after this time even if the client keeps waiting."""
_PIECE_BYTES = 64 * 2**10
_HEAD_LIMIT_BYTES = 64 * 2**10


class Fault(StrEnum):
    """A fault of a request."""

    SLOW_DOWN = "503 SlowDown"
    INTERNAL_ERROR = "500 InternalError"
    RESET = "connection reset in mid-body"
    STALL = "stall in mid-body"
    SHORT = "short read"
    LOST_ANSWER = "answer lost"
    DENIED = "403 AccessDenied"
    EXPIRED = "400 ExpiredToken"
    CONFLICT = "409 ConditionalRequestConflict"


_SPECIAL = (Fault.DENIED, Fault.EXPIRED, Fault.CONFLICT)
"""Injected only where explicitly requested."""
TRANSIENT = tuple(fault for fault in Fault if fault not in _SPECIAL)
"""Faults that any request may meet and a client can outlast."""
READ_FAULTS = (
    Fault.SLOW_DOWN,
    Fault.INTERNAL_ERROR,
    Fault.RESET,
    Fault.STALL,
    Fault.SHORT,
)
WRITE_FAULTS = (Fault.SLOW_DOWN, Fault.INTERNAL_ERROR, Fault.RESET, Fault.LOST_ANSWER)
"""Resets come before the request has reached the server, lost answers after it was served."""


@dataclass(frozen=True)
class Faults:
    """Selection of the faulty requests and their faults."""

    share: float = 0.0
    """Share of the requests, 0 to 1."""
    seed: int = 0
    kinds: tuple[Fault, ...] = TRANSIENT
    """Faults to choose from, as far as they apply to the request; by default all that pass."""
    operations: tuple[str, ...] = ("GET", "HEAD", "LIST", "PUT", "POST", "DELETE")

    def of(self, operation: str, name: str, nth: int) -> Fault | None:
        """The fault of the nth request of this name, if any."""
        kinds = READ_FAULTS if operation in ("GET", "LIST", "HEAD") else WRITE_FAULTS
        possible = [kind for kind in self.kinds if kind in kinds or kind not in TRANSIENT]
        digest = hashlib.blake2b(f"{self.seed}\0{operation}\0{name}\0{nth}".encode()).digest()
        chance = random.Random(digest)
        if not possible or operation not in self.operations or chance.random() >= self.share:
            return None
        return chance.choice(possible)


@dataclass
class FaultProxy:
    """A running proxy.

    `faults` may be changed at any time; `counts` and `bytes_out` are cumulative.
    """

    endpoint: str = ""
    faults: Faults = Faults()
    latency_s: float = 0.0
    """Delay of each request before it is handled; other connections continue meanwhile."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Requests by operation (GET, HEAD, LIST, PUT, POST, DELETE) and by result: "served" or a
    fault."""
    bytes_out: int = 0
    """Bytes of bodies sent to clients."""
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)
    """Strong references: asyncio itself holds tasks only weakly."""

    @property
    def requests(self) -> int:
        """Requests so far."""
        return sum(self.counts.values())

    @property
    def faulty(self) -> int:
        """Requests so far that met a fault."""
        return sum(n for (_, met), n in self.counts.items() if met != "served")

    def reset(self) -> None:
        """Resets all counts, and removes the faults."""
        self.faults = Faults()
        self.counts.clear()
        self._seen.clear()
        self.bytes_out = 0

    def summary(self) -> str:
        """Requests by operation, and by fault, in two lines."""
        by_operation, by_fault = Counter[str](), Counter[str]()
        for (operation, met), number in self.counts.items():
            by_operation[operation] += number
            if met != "served":
                by_fault[met] += number
        return (
            f"{self.requests:,} requests: {_joined(by_operation)}\n"
            f"{self.faulty:,} of them faulty: {_joined(by_fault) or 'none'}"
        )


def _joined(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items()))


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A proxy on loopback to the server at the URL `upstream`, in a thread.

    Runs for the duration of the context.
    """
    parts = urlsplit(upstream)
    proxy = FaultProxy()
    loop = asyncio.new_event_loop()
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    server = loop.run_until_complete(
        asyncio.start_server(
            lambda reader, writer: _handle(proxy, address, reader, writer),
            "127.0.0.1",
            0,
            limit=_HEAD_LIMIT_BYTES,
        )
    )
    proxy.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_end())
        loop.close()


async def _end() -> None:
    """Cancels the requests that are still in progress."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@dataclass(frozen=True)
class _Head:
    """The head of a request or an answer."""

    first: str
    lines: tuple[str, ...]

    def value(self, name: str) -> str | None:
        """The value of a header; None if it is absent."""
        for line in self.lines:
            key, _, value = line.partition(":")
            if key.strip().lower() == name:
                return value.strip()
        return None

    @property
    def size_bytes(self) -> int:
        """Size of the body that follows, -1 if it continues until the connection ends."""
        default = 0 if " HTTP/" in self.first else -1
        return int(self.value("content-length") or default)

    def to_bytes(self, *, without: tuple[str, ...] = ()) -> bytes:
        """The head to pass on, with its connection set to be closed afterwards."""
        dropped = ("connection", *without)
        kept = [
            line for line in self.lines if line.partition(":")[0].strip().lower() not in dropped
        ]
        return "\r\n".join([self.first, *kept, "Connection: close", "", ""]).encode("latin-1")


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = text[:-4].split("\r\n")
    return _Head(first, tuple(lines))


def _operation(head: _Head) -> str:
    method, target, _ = head.first.split(" ", 2)
    return "LIST" if method == "GET" and "list-type=2" in target else method


async def _handle(
    proxy: FaultProxy,
    upstream: tuple[str, int],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Serves the single request of a connection."""
    task = asyncio.current_task()
    assert task is not None
    proxy._under_way.add(task)
    task.add_done_callback(proxy._under_way.discard)
    with suppress(OSError, asyncio.IncompleteReadError):
        request = await _read_head(reader)
        await asyncio.sleep(proxy.latency_s)
        operation = _operation(request)
        name = f"{request.first} {request.value('range')}"
        proxy._seen[operation, name] += 1
        fault = proxy.faults.of(operation, name, proxy._seen[operation, name])
        proxy.counts[operation, fault or "served"] += 1
        if fault is Fault.RESET and operation not in ("GET", "LIST"):
            _abort(writer)
            return
        if request.value("expect") is not None:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if (refusal := _REFUSALS.get(fault)) is not None:
            await _copy(reader, None, request.size_bytes)
            writer.write(_refusal(*refusal, with_body=operation != "HEAD"))
            await writer.drain()
        else:
            await _relay(proxy, upstream, request, fault, (reader, writer))
    with suppress(OSError):
        writer.close()


async def _relay(
    proxy: FaultProxy,
    upstream: tuple[str, int],
    request: _Head,
    fault: Fault | None,
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Passes the request on and its answer back, as far as the fault allows."""
    reader, writer = client
    answers, requests = await asyncio.open_connection(*upstream, limit=_HEAD_LIMIT_BYTES)
    try:
        requests.write(request.to_bytes(without=("expect",)))
        await _copy(reader, requests, request.size_bytes)
        answer = await _read_head(answers)
        if fault is Fault.LOST_ANSWER:
            _abort(writer)
            return
        is_head = request.first.startswith("HEAD ")
        size = 0 if is_head else answer.size_bytes
        if is_head and fault is Fault.STALL:  # an answer without a body stalls before it
            await _stall(reader)
            return
        writer.write(answer.to_bytes())
        proxy.bytes_out += await _copy(
            answers, writer, size if fault is None else max(size, 0) // 2
        )
        if fault is Fault.RESET:
            _abort(writer)
        elif fault is Fault.STALL:
            await _stall(reader)
    finally:
        requests.close()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, count: int
) -> int:
    """Passes on `count` bytes, or all if it is negative; returns their number."""
    done = 0
    while done != count:
        most = _PIECE_BYTES if count < 0 else min(_PIECE_BYTES, count - done)
        piece = await reader.read(most)
        if not piece:
            break
        done += len(piece)
        if writer is not None:
            writer.write(piece)
            await writer.drain()
    return done


async def _stall(reader: asyncio.StreamReader) -> None:
    """Waits until the client disconnects."""
    with suppress(TimeoutError):
        async with asyncio.timeout(STALL_S):
            await reader.read()


def _abort(writer: asyncio.StreamWriter) -> None:
    """Resets the connection: with a linger time of 0, closing sends RST instead of FIN."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


_REFUSALS: dict[Fault | None, tuple[str, str, str]] = {
    Fault.SLOW_DOWN: ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    Fault.INTERNAL_ERROR: ("500 Internal Server Error", "InternalError", "Please try again."),
    Fault.DENIED: ("403 Forbidden", "AccessDenied", "Access Denied"),
    Fault.EXPIRED: ("400 Bad Request", "ExpiredToken", "The provided token has expired."),
    Fault.CONFLICT: (
        "409 Conflict",
        "ConditionalRequestConflict",
        "A conflicting operation occurred during the processing of this request.",
    ),
}


def _refusal(status: str, code: str, message: str, *, with_body: bool) -> bytes:
    """An S3 error response; that of a HEAD has no body."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    length = f"Content-Length: {len(body) if with_body else 0}\r\n\r\n"
    return (head + length + (body if with_body else "")).encode()
