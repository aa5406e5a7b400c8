"""Files of this machine through fsspec; only regular files are opened for reading."""

from __future__ import annotations

from typing import Any

from fsspec.implementations.local import LocalFileSystem

from dfn_ray.untrusted.regular_files import require_regular


class Local(LocalFileSystem):
    """The disks of this machine.

    Opening a pipe for reading would block until something writes to it.
    """

    def _open(self, path: str, mode: str = "rb", *args: Any, **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        if "r" in mode:
            require_regular(path, "cannot be read")
        return super()._open(path, mode, *args, **options)
