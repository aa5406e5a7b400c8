"""Images and shards that kill or stall the process that decodes or reads them, as a bug in a library would.

`arm` teaches this process to really die on them; production code knows nothing of it. For Ray:
`ray.init(runtime_env={"worker_process_setup_hook": "dfn_ray.testing.lethal.arm"})`.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from PIL import Image

KILLER = b"\xff\xd8\xff dfn_ray kills"
"""Opening it is a segmentation fault."""
STALLER = b"\xff\xd8\xff dfn_ray stalls"
"""Opening it takes an hour."""


READER_KILLER = "kills-its-reader"
"""Opening a local file with this in its name is a segmentation fault."""


def arm() -> None:
    """Make Pillow's JPEG plugin and fsspec of this process and its children fall for what is lethal."""
    plain_open = LocalFileSystem._open

    def armed_open(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        if READER_KILLER in path:
            ctypes.string_at(0)
        return plain_open(self, path, *arguments, **options)

    LocalFileSystem._open = armed_open
    Image.init()
    opener, accept = Image.OPEN["JPEG"]
    assert accept is not None

    def armed(prefix: bytes) -> bool | str:
        if prefix.startswith(KILLER[:16]):
            ctypes.string_at(0)
        if prefix.startswith(STALLER[:16]):
            time.sleep(3600)
        return accept(prefix)

    Image.OPEN["JPEG"] = (opener, armed)
