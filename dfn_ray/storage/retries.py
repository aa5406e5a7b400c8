"""The one retry policy of every store: attempts, waits between them, and limits on time."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, Retrying
from tenacity.wait import wait_random_exponential

T = TypeVar("T")


@dataclass(frozen=True)
class Policy:
    """How often and how long a request is tried."""

    attempts: int = 10
    """Of a request that meets only faults that pass: 3 in 10 million are given up where every fifth request is faulty."""
    doubtful_attempts: int = 4
    """Of a request that fails in a way that seldom passes, such as 403: about a second of waiting."""
    first_wait_s: float = 0.2
    longest_wait_s: float = 20.0
    """The nth wait is anywhere in 0 to 0.2, 0.4, 0.8 ... 20 s, so that readers that were throttled together do not
    come back together ("full jitter", AWS Architecture Blog, Exponential Backoff And Jitter, 2015)."""
    attempt_s: float = 300.0
    """An attempt that takes longer is given up. Time-outs of the client end most stalls; this one also ends an answer
    that trickles, and a request body that nobody takes."""
    connect_s: float = 5.0
    stall_s: float = 15.0
    """Without a byte, over HTTP; s3fs has the same two."""


POLICY = Policy()
"""The policy of this process."""


class RetriesSpentError(OSError):
    """All attempts at a request failed; the last failure is the cause."""

    def __init__(self, attempts: int, last: BaseException) -> None:
        super().__init__(f"failed {attempts} times, at last with {in_words(last)}")


def settings(attempts_for: Callable[[BaseException], int]) -> dict[str, Any]:
    """Arguments of tenacity's Retrying and AsyncRetrying for this policy.

    `attempts_for` gives the attempts in all for a request that failed with an error: 1 where it is final.
    """

    def is_enough(state: RetryCallState) -> bool:
        error = state.outcome and state.outcome.exception()
        return state.attempt_number >= attempts_for(error or OSError())

    return {"stop": is_enough, "wait": _wait, "reraise": True}


async def retried_async(
    once: Callable[[], Awaitable[T]], attempts_for: Callable[[BaseException], int]
) -> T:
    """What `once` gives, tried again by the policy. Raises RetriesSpentError when all attempts failed."""
    retrying = AsyncRetrying(**settings(attempts_for))
    try:
        return await retrying(once)
    except Exception as error:
        if attempts_for(error) == 1:
            raise
        raise RetriesSpentError(retrying.statistics["attempt_number"], error) from error


def retried(once: Callable[[], T], attempts_for: Callable[[BaseException], int]) -> T:
    """What `once` gives, tried again by the policy, each attempt in `attempt_s`. Raises RetriesSpentError as above."""
    retrying = Retrying(**settings(attempts_for))
    try:
        return retrying(_within, once, POLICY.attempt_s)
    except Exception as error:
        if attempts_for(error) == 1:
            raise
        raise RetriesSpentError(retrying.statistics["attempt_number"], error) from error


@asynccontextmanager
async def attempt_limit() -> AsyncGenerator[Callable[[], None]]:
    """Ends its block with TimeoutError when an attempt takes too long; what it gives counts the time anew."""
    async with asyncio.timeout(POLICY.attempt_s) as limit:
        clock = asyncio.get_running_loop().time
        yield lambda: limit.reschedule(clock() + POLICY.attempt_s)


def _wait(state: RetryCallState) -> float:
    jitter = wait_random_exponential(multiplier=POLICY.first_wait_s, max=POLICY.longest_wait_s)
    error = state.outcome and state.outcome.exception()
    # A server that says when to come back is not asked before, within the longest wait.
    asked_s = min(getattr(error, "retry_after_s", None) or 0.0, POLICY.longest_wait_s)
    return max(jitter(state), asked_s)


def in_words(error: BaseException) -> str:
    """An error in a few words; aiohttp's and botocore's may print URLs with signatures, so of those the name only."""
    text = str(error).partition("\nFor more information check:")[0]  # httpx's advice
    if not text or type(error).__module__.partition(".")[0] in ("aiohttp", "botocore", "yarl"):
        return type(error).__name__
    return text


def _within(once: Callable[[], T], limit_s: float) -> T:
    """What a blocking call gives, or TimeoutError after a time; a thread that hangs is left behind.

    A daemon thread, because those of an executor are waited for when the interpreter ends.
    """
    answers: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((True, once()))
        except BaseException as error:  # noqa: BLE001  raised below
            answers.put((False, error))

    threading.Thread(target=run, daemon=True, name="storage-request").start()
    try:
        done, value = answers.get(timeout=limit_s)
    except queue.Empty:
        raise TimeoutError(f"no answer within {limit_s:.0f} s") from None
    if not done:
        raise value
    return value
