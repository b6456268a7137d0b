"""Do the probabilities mean what they say? Reliability, calibration error, and the one number that mends most of it.

Bins are of equal width over the confidence (the probability of the predicted class), closed above, as in Guo et al. 2017,
"On Calibration of Modern Neural Networks", sections 2 and 4.2. A temperature is fitted on validation rows, never on test rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Reliability:
    """One entry a bin, empty bins included. Shapes (bins,); `confidence` and `accuracy` are NaN in an empty bin."""

    low: FloatArray
    high: FloatArray
    count: IntArray
    confidence: FloatArray
    accuracy: FloatArray


def reliability(confidence: FloatArray, correct: NDArray[np.bool_], bins: int) -> Reliability:
    """How often rows of a confidence were right.

    Args:
        confidence: probability of the predicted class, shape (N,), 0 to 1.
        correct: whether the prediction was right, shape (N,).
        bins: bins of equal width; a value on an edge belongs to the bin below.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    where = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(where, minlength=bins).astype(np.int64)
    sums = [np.bincount(where, weights=values.astype(np.float64), minlength=bins) for values in (confidence, correct)]
    mean_confidence, accuracy = (np.divide(s, count, out=np.full(bins, np.nan), where=count > 0) for s in sums)
    return Reliability(edges[:-1], edges[1:], count, mean_confidence, accuracy)


def expected_calibration_error(confidence: FloatArray, correct: NDArray[np.bool_], bins: int) -> float:
    """Mean distance between confidence and accuracy over the bins, weighted by their rows (Guo et al. 2017, equation 3)."""
    if len(confidence) == 0:
        return 0.0
    table = reliability(confidence, correct, bins)
    filled = table.count > 0
    gaps = np.abs(table.accuracy[filled] - table.confidence[filled])
    return float((table.count[filled] * gaps).sum() / table.count.sum())


def fit_temperature(logits: NDArray[np.floating[Any]], labels: IntArray) -> float:
    """The T > 0 that minimises the log-loss of softmax(logits / T): Guo et al. 2017, section 4.2.

    The log-loss is convex in 1/T, so its derivative (mean over rows of E_p[z] − z[label]) has one sign change, found
    by bisection.

    Args:
        logits: shape (N, C), of rows that the model was not trained on.
        labels: class ids, shape (N,).
    Returns:
        T; 1 when there are no rows. Bounded to 0.05 … 20: rows that are all right (or no better than chance) have no optimum.
    """
    if len(labels) == 0:
        return 1.0
    z = np.asarray(logits, dtype=np.float64)
    z = z - z.max(axis=1, keepdims=True)
    own = z[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        weights = np.exp(z * inverse)
        return float(((weights * z).sum(axis=1) / weights.sum(axis=1) - own).mean())

    low, high = 1 / 20, 20.0
    if slope(low) >= 0:
        return 20.0
    if slope(high) <= 0:
        return 1 / 20
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(1 / (low * high) ** 0.5)
