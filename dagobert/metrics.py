"""Arrays → the figures by which a classifier is judged, under scikit-learn's names.

Everything but log-loss and calibration error is computed from the confusion matrix, so that one vectorised function serves the
point values and the bootstrap: resampling N test rows is one multinomial draw over the matrix's cells, whatever N is.

Shapes: N rows, C classes, R resamples. Averages follow scikit-learn: a class that neither occurs nor is predicted in the test
rows is left out of the macro means (`ClassScores.absent`), and a share of nothing is 0 (`zero_division=0`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagobert.calibration import expected_calibration_error

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BOOTSTRAP_SEED = 20_190_602  # any fixed number: intervals must be the same bytes every time
_CELLS_AT_ONCE = 4_000_000  # counts held at a time while resampling: 32 MB


class Interval(NamedTuple):
    """A confidence interval, both ends within it."""

    low: float
    high: float


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 a class. Arrays of shape (C,); the macro figures are means over the classes not `absent`."""

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    support: IntArray
    absent: NDArray[np.bool_]
    macro_precision: float
    macro_recall: float
    macro_f1: float


@dataclass(frozen=True)
class Scores:
    """All figures of one classifier on one set of rows."""

    n: int
    accuracy: float
    accuracy_interval: Interval
    classes: ClassScores
    f1_intervals: tuple[Interval, ...]
    macro_f1_interval: Interval
    log_loss: float
    ece: float
    confusion: IntArray


def softmax(logits: NDArray[np.floating[Any]]) -> FloatArray:
    """Probabilities of logits (N, C), computed in float64."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    exp = np.exp(shifted)
    result: FloatArray = exp / exp.sum(axis=1, keepdims=True)
    return result


def wilson_interval(successes: int, n: int, level: float) -> Interval:
    """Wilson score interval of a share (Wilson 1927; Brown, Cai and DasGupta 2001 on why not the normal one).

    Args:
        successes: rows that were right, 0 to n.
        n: rows in all; 0 gives (0, 1).
        level: confidence level, such as 0.95.
    """
    if n == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # With no failure (or no success) the end is exactly 1 (0); the formula misses it by a rounding error.
    return Interval(
        0.0 if successes == 0 else float(centre - half),
        1.0 if successes == n else float(centre + half),
    )


def confusion_matrix(actual: IntArray, predicted: IntArray, n_classes: int) -> IntArray:
    """Rows by (actual, predicted) class, shape (C, C)."""
    cells = np.asarray(actual, dtype=np.int64) * n_classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(cells, minlength=n_classes * n_classes).reshape(n_classes, n_classes).astype(np.int64)


def class_scores(confusion: IntArray) -> ClassScores:
    """Precision, recall and F1 from a confusion matrix (C, C)."""
    hits, actual, predicted = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall, f1 = _shares(hits, actual, predicted)
    absent = (actual + predicted) == 0
    return ClassScores(
        precision=precision,
        recall=recall,
        f1=f1,
        support=actual.astype(np.int64),
        absent=absent,
        macro_precision=_mean_present(precision, absent),
        macro_recall=_mean_present(recall, absent),
        macro_f1=_mean_present(f1, absent),
    )


def log_loss(actual: IntArray, p: FloatArray) -> float:
    """Mean of −ln p(actual class); p (N, C). A probability of 0 counts as the smallest step of float64, as in scikit-learn."""
    if len(actual) == 0:
        return 0.0
    chosen = p[np.arange(len(actual)), actual]
    return float(-np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0)).mean())


def classification_scores(actual: IntArray, p: FloatArray, *, level: float, bins: int, resamples: int) -> Scores:
    """Judge a classifier by its probabilities.

    Args:
        actual: class ids, shape (N,).
        p: probabilities, shape (N, C).
        level: confidence level of the intervals.
        bins: bins of the expected calibration error.
        resamples: bootstrap resamples behind the intervals of F1.
    """
    n, n_classes = p.shape
    predicted = p.argmax(axis=1)
    confusion = confusion_matrix(actual, predicted, n_classes)
    right = int(np.trace(confusion))
    f1_intervals, macro_interval = bootstrap_f1(confusion, level=level, resamples=resamples)
    return Scores(
        n=n,
        accuracy=right / n if n else 0.0,
        accuracy_interval=wilson_interval(right, n, level),
        classes=class_scores(confusion),
        f1_intervals=f1_intervals,
        macro_f1_interval=macro_interval,
        log_loss=log_loss(actual, p),
        ece=expected_calibration_error(p.max(axis=1), predicted == actual, bins),
        confusion=confusion,
    )


def bootstrap_f1(confusion: IntArray, *, level: float, resamples: int) -> tuple[tuple[Interval, ...], Interval]:
    """Percentile bootstrap intervals of each class's F1 and of the macro F1 (Efron and Tibshirani 1993, chapter 13).

    Drawing N rows with replacement gives each cell of the confusion matrix a multinomial count, so rows are never touched.

    Args:
        confusion: shape (C, C).
        level: confidence level.
        resamples: draws, R.
    Returns:
        One interval a class, and that of their macro mean. A set of no rows gives (0, 1).
    """
    n_classes, n = len(confusion), int(confusion.sum())
    if n == 0:
        return (Interval(0.0, 1.0),) * n_classes, Interval(0.0, 1.0)
    row, column = np.nonzero(confusion)
    share = confusion[row, column] / n
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    one = np.eye(n_classes)
    per_class: list[FloatArray] = []
    macro: list[FloatArray] = []
    at_once = max(1, _CELLS_AT_ONCE // len(share))
    for start in range(0, resamples, at_once):
        counts = rng.multinomial(n, share, size=min(at_once, resamples - start))  # (r, cells)
        actual, predicted = counts @ one[row], counts @ one[column]
        hits = counts @ (one[row] * (row == column)[:, None])
        f1 = _shares(hits, actual, predicted)[2]
        present = (actual + predicted) > 0
        per_class.append(f1)
        macro.append(f1.sum(axis=1) / np.maximum(present.sum(axis=1), 1))
    tails = [(1 - level) / 2, (1 + level) / 2]
    ends = np.quantile(np.concatenate(per_class), tails, axis=0)
    low, high = np.quantile(np.concatenate(macro), tails)
    return tuple(Interval(float(a), float(b)) for a, b in ends.T), Interval(float(low), float(high))


def as_json(scores: Scores) -> dict[str, Any]:
    """The figures of all classes together under scikit-learn's names, rounded to six places."""
    c = scores.classes
    return {
        "n": scores.n,
        "accuracy": _round(scores.accuracy),
        "accuracy_low": _round(scores.accuracy_interval.low),
        "accuracy_high": _round(scores.accuracy_interval.high),
        "macro_precision": _round(c.macro_precision),
        "macro_recall": _round(c.macro_recall),
        "macro_f1": _round(c.macro_f1),
        "macro_f1_low": _round(scores.macro_f1_interval.low),
        "macro_f1_high": _round(scores.macro_f1_interval.high),
        "log_loss": _round(scores.log_loss),
        "ece": _round(scores.ece),
        "classes_without_test_rows": int((c.support == 0).sum()),
    }


def per_class_json(scores: Scores, names: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """Precision, recall, F1 and rows of each class, rounded to six places.

    A class without test rows has null for what cannot be known of it: its recall and F1, and its precision if it
    is never predicted.
    """
    c = scores.classes
    known = c.support > 0
    return {
        name: {
            "precision": None if c.absent[i] else _round(c.precision[i]),
            "recall": _round(c.recall[i]) if known[i] else None,
            "f1": _round(c.f1[i]) if known[i] else None,
            "f1_low": _round(scores.f1_intervals[i].low) if known[i] else None,
            "f1_high": _round(scores.f1_intervals[i].high) if known[i] else None,
            "support": int(c.support[i]),
        }
        for i, name in enumerate(names)
    }


def _round(value: float) -> float:
    return round(float(value), 6)


def _shares(hits: NDArray[Any], actual: NDArray[Any], predicted: NDArray[Any]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Precision, recall and F1 of counts (…, C), with 0 for a share of nothing."""
    return _ratio(hits, predicted), _ratio(hits, actual), _ratio(2 * hits, actual + predicted)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> FloatArray:
    result: FloatArray = np.divide(part, whole, out=np.zeros(np.shape(part), dtype=np.float64), where=whole != 0)
    return result


def _mean_present(values: FloatArray, absent: NDArray[np.bool_]) -> float:
    return float(values[~absent].mean()) if not absent.all() else 0.0
