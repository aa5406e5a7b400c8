"""Images and shards that crash, stall or surprise the process that reads them, like a library bug.

`arm` makes this process, and those it starts, really fail on them; production code knows nothing of
it. For Ray: `ray.init(runtime_env={"worker_process_setup_hook": "dfn_ray.testing.lethal.arm"})`.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from dfn_ray.on_ray.uninterruptible_imports import guard_workers

KILLER = b"\xff\xd8\xff dfn_ray kills"
"""Opening it causes a segmentation fault."""
STALLER = b"\xff\xd8\xff dfn_ray stalls"
"""Opening it takes an hour."""


READER_KILLER = "kills-its-reader"
"""Opening a local file with this in its name causes a segmentation fault, as does parsing JSON that
contains it."""

SURPRISE = "dfn_ray surprises its reader"
"""Parsing JSON that contains this raises an OverflowError, which no reader expects of JSON."""
_ARMED_START = Path(__file__).with_name("armed_start")
"""Part of the package, because a folder created here would outlive each process that is killed."""


def arm() -> None:
    """Makes Pillow, fsspec and json fail on lethal files, here and in all child processes.

    As the setup hook of a Ray worker it also guards imports, like the hook that dfn_ray sets.
    """
    guard_workers()
    arm_process()
    paths = [str(_ARMED_START), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def arm_process() -> None:
    """Makes Pillow's JPEG plugin, fsspec and json of this process fail on lethal files."""
    plain_loads = json.loads

    def armed_loads(text: Any, *arguments: Any, **options: Any) -> Any:
        words = text if isinstance(text, str) else bytes(text).decode(errors="replace")
        if f'"{READER_KILLER}"' in words:
            ctypes.string_at(0)
        if SURPRISE in words:
            raise OverflowError("a surprise\nwith a second line")
        return plain_loads(text, *arguments, **options)

    json.loads = armed_loads
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
