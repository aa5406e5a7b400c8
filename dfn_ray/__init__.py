"""Data filtering networks on Ray: score an image-text pool, keep exactly the best, train on it."""

from dfn_ray.whole_imports import guard_workers

__version__ = "0.1.0"

guard_workers()
