"""Work that is repeated beside a block of the driver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(action: Callable[[], None], interval_s: float) -> Iterator[None]:
    """Calls `action` in a thread every `interval_s` seconds while the block runs.

    No call is in progress when the block has ended.
    """
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(interval_s):
            action()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
