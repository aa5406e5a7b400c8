"""A check that the cluster of RAY_ADDRESS answers or a local Ray can start, before any write.

Does not import Ray: Ray itself waits minutes for a cluster that does not exist, then exits the
process.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from dfn_ray.errors import InputError

CONNECT_S = 10.0
"""Time to resolve a name and connect."""
ANSWER_S = 60.0
"""Time in which even a busy head answers on an accepted connection."""
_SESSION = "ray/session_2026-01-01_00-00-00_000000_{}/sockets/plasma_store"
"""The longest socket path of a local Ray (2.60) below its folder for temporary files, by process
ID."""
_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The start of an HTTP/2 connection with an empty SETTINGS frame (RFC 9113, section 3.4). Ray's
servers speak gRPC, so they answer with a SETTINGS frame of their own."""
_SETTINGS = 4


def check_ray_reachable() -> None:
    """Raises InputError when the configured cluster does not answer or a local Ray cannot start.

    Does nothing if this process is already connected.
    """
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        name, address = "RAY_ADDRESS", os.environ["RAY_ADDRESS"]
    else:
        name, address = "the cluster of `ray start`", "auto"
    if address == "local":
        _check_socket_paths()
        return
    if address == "auto":
        started = _local_cluster_address()
        if started is None and not os.environ.get("RAY_ADDRESS"):
            _check_socket_paths()
        if started is None:
            return  # Ray searches this machine's processes, then starts its own or raises.
        name, address = f"{name}, from {_address_file()}", started
    _check_answers(name, address)


def _local_cluster_address() -> str | None:
    """The address of the cluster that was started last on this machine, from Ray's own file."""
    file = _address_file()
    return (file.read_text().strip() or None) if file.exists() else None


def _address_file() -> Path:
    return Path(_temporary_folder()) / "ray" / "ray_current_cluster"


def _temporary_folder() -> str:
    """The parent folder of a local Ray's session (ray 2.60, `get_default_system_temp_dir`)."""
    own = os.environ.get("RAY_TMPDIR")
    system = os.environ.get("TMPDIR") if sys.platform.startswith("linux") else None
    return own or system or "/tmp"


def _check_socket_paths() -> None:
    folder = _temporary_folder()
    room = _SOCKET_PATH_BYTES - len(_SESSION.format(os.getpid())) - 1
    if len(os.fsencode(folder.rstrip("/"))) <= room:
        return
    name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    raise InputError(
        f"{name}={folder}: is too long for Ray's sockets, {len(os.fsencode(folder))} bytes where "
        f"{room} fit; set RAY_TMPDIR to a short path such as /tmp"
    )


def _check_answers(name: str, address: str) -> None:
    """Raises InputError unless a Ray head answers at `HOST:PORT` or `ray://HOST:PORT`."""
    where = f"{name}={address}" if name == "RAY_ADDRESS" else f"{address} ({name})"
    advice = "start the cluster, name another, or unset RAY_ADDRESS for a local Ray"
    scheme, _, rest = address.rpartition("://")
    host, _, port = rest.partition("/")[0].rpartition(":")
    if scheme not in ("", "ray") or not host or not port.isdecimal() or int(port) > 65_535:
        raise InputError(
            f"{where}: need HOST:PORT of a Ray head, ray://HOST:PORT, auto or local; {advice}"
        )
    try:
        with _connected(host.strip("[]"), int(port)) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return  # No answer before a handshake, which needs the cluster's certificates.
            answer = _first_bytes(connection)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"{where}: no Ray cluster answers there ({error or type(error).__name__}); {advice}"
        ) from None
    if answer is None:
        raise InputError(
            f"{where}: accepts connections, but sent no response for {ANSWER_S:.0f} s; {advice}"
        )
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise InputError(
            f"{where}: the server there is not a Ray head, it responded with {answer[:20]!r}; a "
            f"head's port is 6379 unless `ray start` was given another, 10001 for ray://; {advice}"
        )


def _connected(host: str, port: int) -> socket.socket:
    """A connection to the first of the host's addresses that accepts, within `CONNECT_S` in all."""
    end, failed = time.monotonic() + CONNECT_S, OSError("the name has no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(max(0.1, end - time.monotonic()))
        try:
            connection.connect(place)
        except OSError as error:
            connection.close()
            failed = error
        else:
            return connection
    raise failed


def _first_bytes(connection: socket.socket) -> bytes | None:
    """The first bytes of a server's answer to `_PREFACE`; empty if it hangs up, None if silent."""
    end = time.monotonic() + ANSWER_S
    connection.sendall(_PREFACE)
    answer = b""
    while len(answer) < 4:
        connection.settimeout(max(0.001, end - time.monotonic()))
        try:
            piece = connection.recv(64)
        except TimeoutError:
            return None
        if not piece:
            break
        answer += piece
    return answer
