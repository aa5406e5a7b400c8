"""Giving a file of a disk its name unless that is taken, so that the name stands for all of the content or for nothing."""

from __future__ import annotations

import ctypes
import errno
import os

_UNKNOWN = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
"""What file systems answer that have no hard links, or no rename that replaces nothing."""

_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # linux/fcntl.h, linux/fs.h
_RENAMEAT2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28


def named_exclusively(aside: str, path: str) -> bool:
    """Give the file `aside` the name `path`, unless that is taken: False. `aside` may be gone afterwards.

    By a hard link; without them (FAT, exFAT, shares of Windows) by Linux's rename that replaces nothing; without
    that as well by a copy, of which a crash in between leaves a part.
    """
    for way in (os.link, _renamed, _copied):
        try:
            way(aside, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _UNKNOWN or way is _copied:
                raise
        else:
            return True
    raise AssertionError("the last way raises or returns")


def _renamed(aside: str, path: str) -> None:
    if _RENAMEAT2 is None:
        raise OSError(errno.ENOSYS, "no renameat2 on this system")
    arguments = (_AT_FDCWD, os.fsencode(aside), _AT_FDCWD, os.fsencode(path), _RENAME_NOREPLACE)
    if _RENAMEAT2(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def _copied(aside: str, path: str) -> None:
    with open(aside, "rb") as source, open(path, "xb") as file:
        try:
            file.write(source.read())
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.remove(path)  # a full disk leaves nothing under the name
            raise
