"""Judge a model on its test rows: logits and labels in, every figure of the report out. Pure.

The test rows decide nothing here: the temperature is fitted on validation rows, the baseline on training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dagobert import metrics
from dagobert.baseline import Baseline
from dagobert.calibration import Reliability, expected_calibration_error, fit_temperature, reliability
from dagobert.metrics import Scores
from dagobert.significance import PairedComparison, compare_correct
from dagobert.slices import Slice, category_groups, length_groups, slice_scores

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class TestRows:
    """The rows the model is judged on. Arrays of shape (N,), sequences of length N."""

    __test__ = False  # not a test class

    row_ids: IntArray
    labels: IntArray
    texts: Sequence[str]
    tokens: IntArray  # before truncation
    source_files: Sequence[str]
    source_lines: IntArray


@dataclass(frozen=True)
class Calibration:
    """What temperature scaling would give, fitted on `n` validation rows."""

    n: int
    temperature: float
    log_loss: float
    ece: float


@dataclass(frozen=True)
class Evaluation:
    """Everything known about the model after its test. Shapes: `p` (N, C), `predicted` and `correct` (N,)."""

    names: tuple[str, ...]
    rows: TestRows
    p: FloatArray
    predicted: IntArray
    correct: NDArray[np.bool_]
    scores: Scores
    reliability: Reliability
    majority_share: float
    slices: dict[str, list[Slice]]
    baseline: Baseline | None
    baseline_scores: Scores | None
    comparison: PairedComparison | None
    calibration: Calibration | None


def judge(
    rows: TestRows,
    logits: NDArray[np.floating[Any]],
    names: Sequence[str],
    *,
    max_length: int,
    level: float,
    bins: int,
    resamples: int,
    baseline: Baseline | None = None,
    validation: tuple[NDArray[np.floating[Any]], IntArray] | None = None,
) -> Evaluation:
    """Compute all figures.

    Args:
        rows: the test rows, N of them.
        logits: the model's answers, shape (N, C).
        names: what the classes are called, length C.
        max_length: most tokens the model reads (for the slices by length).
        level: confidence level of every interval.
        bins: bins of the calibration error.
        resamples: bootstrap resamples.
        baseline: the baseline's answers on the same rows.
        validation: logits (M, C) and labels (M,) of the validation rows, for the temperature.
    """
    p = metrics.softmax(logits)
    predicted = p.argmax(axis=1).astype(np.int64)
    correct = predicted == rows.labels
    figures = {"level": level, "bins": bins, "resamples": resamples}
    baseline_scores = comparison = None
    if baseline is not None:
        baseline_scores = metrics.classification_scores(rows.labels, baseline.p, **figures)  # type: ignore[arg-type]
        right = baseline.p.argmax(axis=1) == rows.labels
        comparison = compare_correct(correct, right, level=level, resamples=resamples)
    by_length, length_names = length_groups(rows.tokens, max_length)
    by_file, file_names = category_groups(rows.source_files)
    slices = {"length": slice_scores(by_length, length_names, correct, level)}
    if len(file_names) > 1:
        slices["source file"] = slice_scores(by_file, file_names, correct, level)
    return Evaluation(
        names=tuple(names),
        rows=rows,
        p=p,
        predicted=predicted,
        correct=correct,
        scores=metrics.classification_scores(rows.labels, p, **figures),  # type: ignore[arg-type]
        reliability=reliability(p.max(axis=1), correct, bins),
        majority_share=float(np.bincount(rows.labels).max() / len(rows.labels)) if len(rows.labels) else 0.0,
        slices=slices,
        baseline=baseline,
        baseline_scores=baseline_scores,
        comparison=comparison,
        calibration=None if validation is None else _calibrate(rows.labels, logits, *validation, bins=bins),
    )


def _calibrate(
    labels: IntArray, logits: NDArray[Any], validation_logits: NDArray[Any], validation_labels: IntArray, *, bins: int
) -> Calibration:
    temperature = fit_temperature(validation_logits, validation_labels)
    p = metrics.softmax(np.asarray(logits, dtype=np.float64) / temperature)
    return Calibration(
        n=len(validation_labels),
        temperature=temperature,
        log_loss=metrics.log_loss(labels, p),
        ece=expected_calibration_error(p.max(axis=1), p.argmax(axis=1) == labels, bins),
    )


def metrics_json(e: Evaluation, validation: dict[str, Any]) -> dict[str, Any]:
    """What reports/metrics.json holds, kept small enough for `dvc metrics show`: the baseline's classes are in classes.csv.

    Args:
        e: the judged model.
        validation: the record of the kept epoch from training.
    """
    test = metrics.as_json(e.scores)
    if e.calibration is not None:
        test["temperature"] = round(e.calibration.temperature, 6)
        test["log_loss_at_temperature"] = round(e.calibration.log_loss, 6)
        test["ece_at_temperature"] = round(e.calibration.ece, 6)
    wanted = ("precision", "recall", "f1", "support")
    of_class = metrics.per_class_json(e.scores, e.names)
    test["per_class"] = {name: {key: values[key] for key in wanted} for name, values in of_class.items()}
    result: dict[str, Any] = {"test": test}
    if e.baseline_scores is not None and e.comparison is not None:
        result["baseline"] = metrics.as_json(e.baseline_scores)
        result["against_baseline"] = e.comparison.as_json()
    result["validation"] = {key: value for key, value in validation.items() if isinstance(value, (int, float))}
    return result


def most_confident_mistakes(e: Evaluation, most: int) -> IntArray:
    """Positions of wrong rows, the surest first (ties in row order)."""
    wrong = np.nonzero(~e.correct)[0]
    order = np.argsort(-e.p[wrong].max(axis=1), kind="stable")
    return wrong[order][:most].astype(np.int64)
