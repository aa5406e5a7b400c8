"""Renaming a local file unless the new name is taken, so that a name implies complete content."""

from __future__ import annotations

import ctypes
import errno
import os

_UNKNOWN = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
"""Errors of file systems without hard links, or without a rename that never replaces."""

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
