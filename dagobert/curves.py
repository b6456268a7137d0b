"""Arrays → the points of the curves by which a classifier is judged: ROC, precision–recall, thresholds.

Curves are one-vs-rest, a class each; with two classes only the second (the "positive" one) is drawn, as the other is its
mirror.
Ties are kept together: rows of one score fall on one side of any threshold. A curve is thinned to `MOST_POINTS`, as a plot of
100,000 test rows would otherwise be a file of megabytes that nobody can see the difference of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

MOST_POINTS = 400


@dataclass(frozen=True)
class Sweep:
    """What a score does as the threshold falls. Shapes (P,): counts of rows with score ≥ `threshold`; P distinct scores."""

    threshold: FloatArray
    hits: IntArray
    false_alarms: IntArray
    positives: int
    negatives: int

    @property
    def recall(self) -> FloatArray:
        """Hits over positives (true-positive rate)."""
        return self.hits / max(self.positives, 1)

    @property
    def false_positive_rate(self) -> FloatArray:
        """False alarms over negatives."""
        return self.false_alarms / max(self.negatives, 1)

    @property
    def precision(self) -> FloatArray:
        """Hits over all rows at or above the threshold."""
        return self.hits / (self.hits + self.false_alarms)


def sweep(positive: BoolArray, score: FloatArray) -> Sweep:
    """Count hits and false alarms at every distinct score, highest first. Shapes (N,)."""
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], positive[order]
    last = np.append(np.nonzero(np.diff(score))[0], len(score) - 1) if len(score) else np.zeros(0, dtype=np.int64)
    hits = np.cumsum(positive)[last].astype(np.int64)
    return Sweep(score[last], hits, (last + 1 - hits).astype(np.int64), int(positive.sum()), int((~positive).sum()))


def roc(s: Sweep) -> tuple[FloatArray, FloatArray, float]:
    """(false-positive rate, true-positive rate, area). The area is NaN where there are no positives or no negatives."""
    x, y = np.append(0.0, s.false_positive_rate), np.append(0.0, s.recall)
    area = float(np.trapezoid(y, x)) if s.positives and s.negatives else float("nan")
    keep = thin(x, y)
    return x[keep], y[keep], area


def precision_recall(s: Sweep) -> tuple[FloatArray, FloatArray, float]:
    """(recall, precision, average precision = Σ (Rₙ − Rₙ₋₁) Pₙ, as in scikit-learn). NaN without positives."""
    recall, precision = s.recall, s.precision
    average = float((np.diff(recall, prepend=0.0) * precision).sum()) if s.positives else float("nan")
    keep = thin(recall, precision)
    return recall[keep], precision[keep], average


def drawn_classes(support: IntArray, n: int, multi: bool = False) -> list[int]:
    """Classes that have a curve: of two that exclude each other the second, else all. None that has no
    test row, or has them all.
    """
    candidates = [1] if len(support) == 2 and not multi else range(len(support))
    return [c for c in candidates if 0 < support[c] < n]


def coverage(correct: BoolArray, confidence: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What one gains by leaving unsure rows to a person.

    Returns:
        (threshold, share of rows with confidence ≥ threshold, accuracy among them), thresholds falling.
    """
    s = sweep(correct, confidence)
    taken = s.hits + s.false_alarms
    share, accuracy = taken / max(len(correct), 1), s.hits / np.maximum(taken, 1)
    keep = thin(share, accuracy)
    return s.threshold[keep], share[keep], accuracy[keep]


def thin(x: FloatArray, y: FloatArray, most: int = MOST_POINTS) -> IntArray:
    """Indices of at most `most` points that keep both ends and are spread evenly along the curve's length."""
    if len(x) <= most:
        return np.arange(len(x), dtype=np.int64)
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    wanted = np.linspace(0.0, along[-1], most)
    kept = np.unique(np.searchsorted(along, wanted))
    return np.unique(np.append(kept, [0, len(x) - 1])).astype(np.int64)[: most + 2]
