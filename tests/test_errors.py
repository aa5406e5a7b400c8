from __future__ import annotations

from dfn_ray.errors import last_line


def test_the_telling_line_is_what_was_raised_and_not_the_advice_after_it():
    error = RuntimeError(
        "Traceback\n  in a worker\nOSError: no such shard\nFailed to apply UDF transform after 1/1 "
        "attempts (total backoff 0.0s).\nTo change retry attempts, configure it."
    )
    assert last_line(error) == "OSError: no such shard"
    assert last_line(RuntimeError()) == "RuntimeError"
