from __future__ import annotations

import pytest

from dfn_ray.storage.retries import Policy


@pytest.fixture
def quick(monkeypatch):
    """The policy with all its attempts, without waits, and with a short stall limit."""
    policy = Policy(attempts=3, doubtful_attempts=2, longest_wait_s=0, stall_s=0.8)
    monkeypatch.setattr("dfn_ray.storage.retries.POLICY", policy)
    return policy
