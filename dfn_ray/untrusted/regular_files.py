"""Files of this machine that have an end: pipes, sockets and devices are refused, not opened, since they make readers wait."""

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
"""Where the kernel writes files when they are read, some of which wait for news and have no end. Their size is 0."""


def require_regular(path: str, name: str) -> None:
    """Raise InputError, which begins with `name`, unless a regular file is at a path, or nothing."""
    try:
        status = os.stat(path)
    except OSError:
        return  # whoever opens it says what is wrong
    if not is_finite_file(status):
        kinds = (kind for is_kind, kind in _KINDS if is_kind(status.st_mode))
        kind = next(kinds, "a file that the kernel writes when it is read")
        raise InputError(
            f"{name}: {utf8_safe(path)} is {kind}, not a regular file; copy what is in it to one"
        )


def is_finite_file(status: os.stat_result) -> bool:
    """True for a regular file that is not the kernel's."""
    if not stat.S_ISREG(status.st_mode):
        return False
    return bool(status.st_size) or status.st_dev not in _kernel_devices()


@cache
def _kernel_devices() -> frozenset[int]:
    return frozenset(os.stat(path).st_dev for path in _KERNEL if os.path.ismount(path))
