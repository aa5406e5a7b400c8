"""Data filtering networks on Ray: score an image-text pool, keep exactly the best, train on it."""

__version__ = "0.1.0"
