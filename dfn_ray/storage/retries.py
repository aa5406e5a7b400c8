"""The retry policy of all stores: attempts, waits between them, and time limits."""

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

from dfn_ray.errors import SentWhole

T = TypeVar("T")


@dataclass(frozen=True)
class Policy:
    """Limits on the attempts at a request."""

    attempts: int = 10
    """For transient faults: 3 requests in 10 million are given up if every fifth attempt fails."""
    doubtful_attempts: int = 4
    """For faults that are seldom transient, such as 403: about a second of waiting."""
    first_wait_s: float = 0.2
    longest_wait_s: float = 20.0
    """The nth wait is uniform in 0 to 0.2, 0.4, 0.8 ... 20 s, so that readers that were throttled
    together do not retry together ("full jitter", AWS Architecture Blog, Exponential Backoff And
    Jitter, 2015)."""
    attempt_s: float = 300.0
    """Limit on an attempt. Client timeouts end most stalls; this one also ends a response that
    trickles, and a request body that the server does not read."""
    connect_s: float = 5.0
    stall_s: float = 15.0
    """Limit on waiting for the next byte over HTTP; s3fs has the same two limits."""


POLICY = Policy()
"""The policy of this process."""


class RetriesSpentError(SentWhole, OSError):
    """All attempts at a request failed; the last failure is the cause."""

    def __init__(self, attempts: int, last: BaseException) -> None:
        super().__init__(f"failed {attempts} times; the last error: {error_text(last)}")


def tenacity_arguments(attempts_for: Callable[[BaseException], int]) -> dict[str, Any]:
    """Arguments of tenacity's Retrying and AsyncRetrying for this policy.

    `attempts_for` returns the total number of attempts for an error; 1 means final.
    """

    def is_enough(state: RetryCallState) -> bool:
        error = state.outcome and state.outcome.exception()
        return state.attempt_number >= attempts_for(error or OSError())

    return {"stop": is_enough, "wait": _wait, "reraise": True}


async def call_with_retries_async(
    once: Callable[[], Awaitable[T]], attempts_for: Callable[[BaseException], int]
) -> T:
    """Awaits `once` by the policy. Raises RetriesSpentError when all attempts failed."""
    retrying = AsyncRetrying(**tenacity_arguments(attempts_for))
    try:
        return await retrying(once)
    except Exception as error:
        if attempts_for(error) == 1:
            raise
        raise RetriesSpentError(retrying.statistics["attempt_number"], error) from error


def call_with_retries(once: Callable[[], T], attempts_for: Callable[[BaseException], int]) -> T:
    """Calls `once` by the policy, each attempt within `attempt_s`.

    Raises RetriesSpentError when all attempts failed.
    """
    retrying = Retrying(**tenacity_arguments(attempts_for))
    try:
        return retrying(call_within, once, POLICY.attempt_s)
    except Exception as error:
        if attempts_for(error) == 1:
            raise
        raise RetriesSpentError(retrying.statistics["attempt_number"], error) from error


@asynccontextmanager
async def attempt_limit() -> AsyncGenerator[Callable[[], None]]:
    """Ends its block with TimeoutError after `attempt_s`; yields a function that resets it."""
    async with asyncio.timeout(POLICY.attempt_s) as limit:
        clock = asyncio.get_running_loop().time
        yield lambda: limit.reschedule(clock() + POLICY.attempt_s)


def _wait(state: RetryCallState) -> float:
    jitter = wait_random_exponential(multiplier=POLICY.first_wait_s, max=POLICY.longest_wait_s)
    error = state.outcome and state.outcome.exception()
    # A server's Retry-After is respected, up to the longest wait.
    requested_s = min(getattr(error, "retry_after_s", None) or 0.0, POLICY.longest_wait_s)
    return max(jitter(state), requested_s)


def error_text(error: BaseException) -> str:
    """The message of an error; for aiohttp and botocore, which may print signed URLs, the class."""
    text = str(error).partition("\nFor more information check:")[0]  # httpx's advice
    if not text or type(error).__module__.partition(".")[0] in ("aiohttp", "botocore", "yarl"):
        return type(error).__name__
    return text


def call_within(once: Callable[[], T], limit_s: float) -> T:
    """Returns the result of a blocking call on a thread; raises TimeoutError after `limit_s`.

    The thread is abandoned then. It is a daemon thread: at exit, the interpreter waits for those of
    an executor.
    """
    answers: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((True, once()))
        except BaseException as error:  # noqa: BLE001  re-raised below
            answers.put((False, error))

    threading.Thread(target=run, daemon=True, name="call-within").start()
    try:
        done, value = answers.get(timeout=limit_s)
    except queue.Empty:
        raise TimeoutError(f"no response within {limit_s:.0f} s") from None
    if not done:
        raise value
    return value
