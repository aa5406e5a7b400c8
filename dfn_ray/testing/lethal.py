"""Images that kill or stall the process that decodes them, as a bug in a decoder would.

`arm` teaches this process's Pillow to really die on them; production code knows nothing of it. For Ray:
`ray.init(runtime_env={"worker_process_setup_hook": "dfn_ray.testing.lethal.arm"})`.
"""

from __future__ import annotations

import ctypes
import time

from PIL import Image

KILLER = b"\xff\xd8\xff dfn_ray kills"
"""Opening it is a segmentation fault."""
STALLER = b"\xff\xd8\xff dfn_ray stalls"
"""Opening it takes an hour."""


def arm() -> None:
    """Make Pillow's JPEG plugin of this process and its children fall for KILLER and STALLER."""
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
