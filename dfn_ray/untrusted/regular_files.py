"""Check that local files have an end.

Pipes, sockets and devices are rejected without opening them, because readers block on them.
"""

from __future__ import annotations

import os
import stat
from functools import cache

from dfn_ray.errors import InputError
from dfn_ray.uris import utf8_safe

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_KERNEL = ("/proc", "/sys")
"""Mount points of files that the kernel generates on reading, some of which wait for news and never
end. Their size is 0."""


def require_regular(path: str, name: str) -> None:
    """Raises InputError, prefixed with `name`, if a path exists but is not a regular file."""
    try:
        status = os.stat(path)
    except OSError:
        return  # opening it reports the error
    if not is_finite_file(status):
        kinds = (kind for is_kind, kind in _KINDS if is_kind(status.st_mode))
        kind = next(kinds, "a file that the kernel writes when it is read")
        raise InputError(
            f"{name}: {utf8_safe(path)} is {kind}, not a regular file; copy its content to one"
        )


def is_finite_file(status: os.stat_result) -> bool:
    """True for a regular file that is not the kernel's."""
    if not stat.S_ISREG(status.st_mode):
        return False
    return bool(status.st_size) or status.st_dev not in _kernel_devices()


@cache
def _kernel_devices() -> frozenset[int]:
    return frozenset(os.stat(path).st_dev for path in _KERNEL if os.path.ismount(path))
