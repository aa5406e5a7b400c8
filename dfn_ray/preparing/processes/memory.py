"""Memory that a process creates and another one maps."""

from __future__ import annotations

import math
import mmap
import os
import sys
import tempfile
from typing import Any

import numpy as np

KEPT_BYTES, SPARE = 64 * 2**20, 4
"""A block of more bytes is given up for a use that needs less than a `SPARE`th of it."""


class Block:
    """Shared memory; freed when the last process has unmapped it and closed its descriptor."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor, self.size = descriptor, size
        self.map = mmap.mmap(descriptor, size)
        self.address = np.frombuffer(self.map, np.uint8).ctypes.data

    @classmethod
    def create(cls, size: int) -> Block:
        """A new block of zeros, of at least this many bytes."""
        size = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        descriptor = _anonymous_file()
        os.ftruncate(descriptor, size)
        return cls(descriptor, size)

    def close_descriptor(self) -> None:
        """Closes the descriptor; the memory stays mapped."""
        os.close(self.descriptor)
        self.descriptor = -1

    def array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array at the start of the block."""
        return np.frombuffer(self.map, dtype, count=math.prod(shape)).reshape(shape)

    def suits(self, size: int) -> bool:
        """True if `size` bytes fit and do not leave too much of it unused."""
        return size <= self.size <= max(SPARE * size, KEPT_BYTES)


def _anonymous_file() -> int:
    if sys.platform == "linux":
        return os.memfd_create("dfn_ray")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
