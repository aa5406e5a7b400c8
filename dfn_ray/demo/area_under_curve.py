"""The area under the ROC curve of two lists of scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def area_under_curve(good: NDArray[np.float32], bad: NDArray[np.float32]) -> float:
    """The probability that a good score is above a bad one; ties count half."""
    order = np.sort(bad)
    below = np.searchsorted(order, good, side="left")
    up_to = np.searchsorted(order, good, side="right")
    return float((below + up_to).mean() / 2 / len(bad))
