"""Waiting for something, and doing something meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONG_S = 240.0
"""What has not come by then on two cores will not."""


def until(
    there: Callable[[], bool], *, within_s: float = LONG_S, otherwise: str = "it never came"
) -> None:
    """Wait for something. Raises TimeoutError, with `otherwise`, when it does not come."""
    deadline = time.monotonic() + within_s
    while not there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{otherwise} within {within_s:.0f} s")
        time.sleep(0.1)


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread while the block runs; what fails there fails here."""
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
    assert not thread.is_alive(), "what was to be done during the run was not"
