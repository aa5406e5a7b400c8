"""Waiting for a condition, and running work in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONG_S = 240.0
"""Time limit on two cores."""


def until(
    there: Callable[[], bool],
    *,
    within_s: float = LONG_S,
    otherwise: str = "the condition was not met",
) -> None:
    """Waits for a condition. Raises TimeoutError, with `otherwise`, if it does not become true."""
    deadline = time.monotonic() + within_s
    while not there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{otherwise} within {within_s:.0f} s")
        time.sleep(0.1)


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Runs `work` in a thread while the block runs; raises its exceptions here."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  raised below
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(timeout=LONG_S)
    assert not failed, failed[0]
    assert not thread.is_alive(), f"the work did not end within {LONG_S:.0f} s"
