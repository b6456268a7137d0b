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
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class TestRows:
    """The rows the model is judged on. Arrays of shape (N,), sequences of length N."""

    __test__ = False  # not a test class

    row_ids: IntArray
    answers: BoolArray  # (N, C): the labels of a row; exactly one where the problem is single-label
    texts: Sequence[str]
    tokens: IntArray  # before truncation
    source_files: Sequence[str]
    source_lines: IntArray

    @property
    def labels(self) -> IntArray:
        """The label of each row, shape (N,), where each has one."""
        ids: IntArray = self.answers.argmax(axis=1).astype(np.int64)
        return ids


@dataclass(frozen=True)
class Calibration:
    """What temperature scaling would give, fitted on `n` validation rows."""

    n: int
    temperature: float
    log_loss: float
    ece: float


@dataclass(frozen=True)
class Evaluation:
    """Everything known about the model after its test. Shapes: `p` and `chosen` (N, C), `correct` (N,)."""

    names: tuple[str, ...]
    multi: bool
    rows: TestRows
    p: FloatArray
    chosen: BoolArray
    correct: BoolArray
    scores: Scores
    reliability: Reliability
    majority_share: float
    slices: dict[str, list[Slice]]
    baseline: Baseline | None
    baseline_scores: Scores | None
    comparison: PairedComparison | None
    calibration: Calibration | None

    @property
    def predicted(self) -> IntArray:
        """The predicted class of each row, shape (N,), where each has one."""
        ids: IntArray = self.chosen.argmax(axis=1).astype(np.int64)
        return ids

    @property
    def confidence(self) -> FloatArray:
        """How sure the model is of each row's answer, shape (N,): the least sure of its labels where it may have several."""
        sure: FloatArray = np.maximum(self.p, 1 - self.p).min(axis=1) if self.multi else self.p.max(axis=1)
        return sure


def judge(
    rows: TestRows,
    logits: NDArray[np.floating[Any]],
    names: Sequence[str],
    *,
    multi: bool = False,
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
        multi: whether a row may have several labels, or none.
        max_length: most tokens the model reads (for the slices by length).
        level: confidence level of every interval.
        bins: bins of the calibration error.
        resamples: bootstrap resamples.
        baseline: the baseline's answers on the same rows.
        validation: logits (M, C) and labels (M,) of the validation rows, for the temperature (one label a row only).
    """
    p = metrics.sigmoid(logits) if multi else metrics.softmax(logits)
    chosen = choose(p, multi)
    correct = (chosen == rows.answers).all(axis=1)
    baseline_scores = comparison = None
    if baseline is not None:
        baseline_scores = _scores(rows, baseline.p, multi, level, bins, resamples)
        right = (choose(baseline.p, multi) == rows.answers).all(axis=1)
        comparison = compare_correct(correct, right, level=level, resamples=resamples)
    by_length, length_names = length_groups(rows.tokens, max_length)
    by_file, file_names = category_groups(rows.source_files)
    slices = {"length": slice_scores(by_length, length_names, correct, level)}
    if len(file_names) > 1:
        slices["source file"] = slice_scores(by_file, file_names, correct, level)
    return Evaluation(
        names=tuple(names),
        multi=multi,
        rows=rows,
        p=p,
        chosen=chosen,
        correct=correct,
        scores=_scores(rows, p, multi, level, bins, resamples),
        reliability=_reliability(rows, p, chosen, multi, bins),
        majority_share=majority_share(rows.answers),
        slices=slices,
        baseline=baseline,
        baseline_scores=baseline_scores,
        comparison=comparison,
        calibration=None if validation is None or multi else _calibrate(rows.labels, logits, *validation, bins=bins),
    )


def choose(p: FloatArray, multi: bool) -> BoolArray:
    """The answer of probabilities (N, C): the largest, or with several labels a row those of one half and more."""
    return p >= 0.5 if multi else one_hot(p.argmax(axis=1), p.shape[1])


def one_hot(labels: IntArray, n_classes: int) -> BoolArray:
    """Class ids (N,) to (N, C)."""
    hot: BoolArray = labels[:, None] == np.arange(n_classes)
    return hot


def majority_share(answers: BoolArray) -> float:
    """How often the most frequent answer is right; answers (N, C)."""
    if not len(answers):
        return 0.0
    _, count = np.unique(answers, axis=0, return_counts=True)
    return float(count.max() / len(answers))


def _scores(rows: TestRows, p: FloatArray, multi: bool, level: float, bins: int, resamples: int) -> Scores:
    if multi:
        return metrics.multi_label_scores(rows.answers, p, level=level, bins=bins, resamples=resamples)
    return metrics.classification_scores(rows.labels, p, level=level, bins=bins, resamples=resamples)


def _reliability(rows: TestRows, p: FloatArray, chosen: BoolArray, multi: bool, bins: int) -> Reliability:
    if multi:  # every label of every row is a decision
        return reliability(np.maximum(p, 1 - p).ravel(), (chosen == rows.answers).ravel(), bins)
    return reliability(p.max(axis=1), (chosen == rows.answers).all(axis=1), bins)


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
    # With several labels a row: the wrong label the model was surest of.
    at_fault = e.chosen[wrong] != e.rows.answers[wrong] if e.multi else e.chosen[wrong]
    sureness = np.where(at_fault, np.maximum(e.p[wrong], 1 - e.p[wrong]) if e.multi else e.p[wrong], 0.0).max(
        axis=1, initial=0.0
    )
    order = np.argsort(-sureness, kind="stable")
    return wrong[order][:most].astype(np.int64)


def confused_pairs(e: Evaluation) -> IntArray:
    """Rows by (actual, predicted), shape (C+1, C+1): the confusion matrix, with a last row and column for "none".

    With several labels a row, each label it has and was not given is paired with each it was given and has not.
    """
    n = len(e.names)
    matrix = np.zeros((n + 1, n + 1), dtype=np.int64)
    if e.scores.confusion is not None:
        matrix[:n, :n] = e.scores.confusion
        return matrix
    missed, extra = e.rows.answers & ~e.chosen, e.chosen & ~e.rows.answers
    missed = np.column_stack([missed, extra.any(axis=1) & ~missed.any(axis=1)])
    extra = np.column_stack([extra, missed[:, :n].any(axis=1) & ~extra.any(axis=1)])
    matrix = missed.astype(np.int64).T @ extra.astype(np.int64)
    matrix[np.arange(n), np.arange(n)] = (e.rows.answers & e.chosen).sum(axis=0)
    return matrix
