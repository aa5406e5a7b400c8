"""The setup of Ray's worker processes in tests."""

from __future__ import annotations

import sys

from dfn_ray.testing import lethal


def set_up() -> None:
    """Arms the worker with the bugs of `lethal`, and hides transformers from it.

    transformers is a dependency of tests alone. open_clip imports it where it is installed, which
    took a quarter of the start of a scorer and is not what users run.
    """
    lethal.arm()
    sys.modules["transformers"] = None  # pyright: ignore[reportArgumentType]
