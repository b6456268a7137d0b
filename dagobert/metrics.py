"""Arrays → the figures by which a classifier is judged, under scikit-learn's names.

Everything but log-loss and calibration error is computed from the confusion matrix, so that one vectorised function serves the
point values and the bootstrap: resampling N test rows is one multinomial draw over the matrix's cells, whatever N is.

Where a row may have several labels, a row is right when all of its labels are, and the rest is counted label by label.

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
BoolArray = NDArray[np.bool_]

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
    absent: BoolArray
    macro_precision: float
    macro_recall: float
    macro_f1: float


@dataclass(frozen=True)
class Scores:
    """All figures of one classifier on one set of rows. `confusion` is (C, C), or None with several labels a row."""

    n: int
    accuracy: float
    accuracy_interval: Interval
    classes: ClassScores
    f1_intervals: tuple[Interval, ...]
    macro_f1_interval: Interval
    log_loss: float
    ece: float
    confusion: IntArray | None


def softmax(logits: NDArray[np.floating[Any]]) -> FloatArray:
    """Probabilities of logits (N, C), computed in float64."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    exp = np.exp(shifted)
    result: FloatArray = exp / exp.sum(axis=1, keepdims=True)
    return result


def sigmoid(logits: NDArray[np.floating[Any]]) -> FloatArray:
    """Probabilities of logits (N, C) that are judged one by one, computed in float64."""
    z = np.asarray(logits, dtype=np.float64)
    result: FloatArray = np.exp(-np.logaddexp(0.0, -z))
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
    return _class_scores(np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0))


def _class_scores(hits: IntArray, actual: IntArray, predicted: IntArray) -> ClassScores:
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


def multi_label_scores(actual: BoolArray, p: FloatArray, *, level: float, bins: int, resamples: int) -> Scores:
    """Judge a classifier that may give a row several labels: those whose probability is one half or more.

    Accuracy is the share of rows with exactly the right labels; log-loss and calibration error are over all N·C decisions.

    Args:
        actual: labels, shape (N, C).
        p: probabilities, shape (N, C).
        level: confidence level of the intervals.
        bins: bins of the expected calibration error.
        resamples: bootstrap resamples behind the intervals of F1.
    """
    n = len(p)
    chosen = p >= 0.5
    right = int((chosen == actual).all(axis=1).sum())
    hits = (chosen & actual).sum(axis=0)
    f1_intervals, macro_interval = bootstrap_f1_rows(actual, chosen, level=level, resamples=resamples)
    certain = np.maximum(p, 1 - p).ravel()
    eps = np.finfo(np.float64).eps
    loss = -np.log(np.clip(np.where(actual, p, 1 - p), eps, 1.0))
    return Scores(
        n=n,
        accuracy=right / n if n else 0.0,
        accuracy_interval=wilson_interval(right, n, level),
        classes=_class_scores(hits, actual.sum(axis=0), chosen.sum(axis=0)),
        f1_intervals=f1_intervals,
        macro_f1_interval=macro_interval,
        log_loss=float(loss.mean()) if n else 0.0,
        ece=expected_calibration_error(certain, (chosen == actual).ravel(), bins),
        confusion=None,
    )


def bootstrap_f1_rows(
    actual: BoolArray, chosen: BoolArray, *, level: float, resamples: int
) -> tuple[tuple[Interval, ...], Interval]:
    """As `bootstrap_f1`, for rows with several labels: each row gets a multinomial weight. Shapes (N, C)."""
    n, n_classes = actual.shape
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    hits, truth, given = (x.astype(np.float64) for x in (actual & chosen, actual, chosen))
    at_once = max(1, _CELLS_AT_ONCE // max(n, 1))
    drawn = []
    for start in range(0, resamples if n else 0, at_once):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=min(at_once, resamples - start)).astype(np.float64)
        drawn.append((weights @ hits, weights @ truth, weights @ given))
    return _f1_intervals(drawn, n_classes, level)


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
        return _f1_intervals([], n_classes, level)
    row, column = np.nonzero(confusion)
    share = confusion[row, column] / n
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    one = np.eye(n_classes)
    at_once = max(1, _CELLS_AT_ONCE // len(share))
    drawn = []
    for start in range(0, resamples, at_once):
        counts = rng.multinomial(n, share, size=min(at_once, resamples - start))  # (r, cells)
        drawn.append((counts @ (one[row] * (row == column)[:, None]), counts @ one[row], counts @ one[column]))
    return _f1_intervals(drawn, n_classes, level)


Counts = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # hits, actual, predicted: (r, C) each


def _f1_intervals(drawn: list[Counts], n_classes: int, level: float) -> tuple[tuple[Interval, ...], Interval]:
    if not drawn:
        return (Interval(0.0, 1.0),) * n_classes, Interval(0.0, 1.0)
    per_class = [_shares(*counts)[2] for counts in drawn]
    present = [((actual + predicted) > 0).sum(axis=1) for _, actual, predicted in drawn]
    macro = [f1.sum(axis=1) / np.maximum(k, 1) for f1, k in zip(per_class, present, strict=True)]
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


def _mean_present(values: FloatArray, absent: BoolArray) -> float:
    return float(values[~absent].mean()) if not absent.all() else 0.0
