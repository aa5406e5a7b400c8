"""Files of a local disk: renamed only to a free name, replaced under a lock, synced."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager

_UNKNOWN = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
"""Errors of file systems without hard links, or without a rename that never replaces."""

_LOCK = ".replacing"
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # linux/fcntl.h, linux/fs.h
_RENAMEAT2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28


def rename_if_free(temporary: str, path: str) -> bool:
    """Renames the file `temporary` to `path`; returns False if that name is taken.

    `temporary` may be gone afterwards. Uses a hard link; on file systems without them (FAT, exFAT,
    Windows shares) Linux's RENAME_NOREPLACE; without that too, a copy, of which a crash may leave a
    part.
    """
    for method in (os.link, _rename, _copy):
        try:
            method(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _UNKNOWN or method is _copy:
                raise
        else:
            return True
    raise AssertionError("the last method raises or returns")


def _rename(temporary: str, path: str) -> None:
    if _RENAMEAT2 is None:
        raise OSError(errno.ENOSYS, "no renameat2 on this system")
    arguments = (_AT_FDCWD, os.fsencode(temporary), _AT_FDCWD, os.fsencode(path), _RENAME_NOREPLACE)
    if _RENAMEAT2(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def _copy(temporary: str, path: str) -> None:
    with open(temporary, "rb") as source, open(path, "xb") as file:
        try:
            file.write(source.read())
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.remove(path)  # a full disk leaves nothing under the name
            raise


def sync_folder(folder: str) -> None:
    """Syncs a folder's entries to disk: until then a power failure can undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Holds a folder's lock. It is the kernel's, so it is released when a process dies."""
    with open(posixpath.join(folder, _LOCK), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
