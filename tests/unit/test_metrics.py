from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from dagobert import metrics
from dagobert.metrics import Interval


def draw(seed: int, n: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and probabilities (N, C) of a classifier that is right more often than not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    logits = rng.normal(0, 1.5, (n, n_classes))
    logits[np.arange(n), labels] += 1.5
    return labels, metrics.softmax(logits)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 200), n_classes=st.integers(2, 6))
@settings(max_examples=50, deadline=None)
def test_figures_are_those_of_scikit_learn(seed: int, n: int, n_classes: int) -> None:
    labels, p = draw(seed, n, n_classes)
    predicted = p.argmax(axis=1)
    found = metrics.classification_scores(labels, p, level=0.95, bins=10, resamples=100)
    assert found.accuracy == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found.log_loss == pytest.approx(reference.log_loss(labels, p, labels=range(n_classes)))
    ours = found.classes
    each = reference.precision_recall_fscore_support(labels, predicted, labels=range(n_classes), zero_division=0)
    for mine, theirs in zip((ours.precision, ours.recall, ours.f1, ours.support), each, strict=True):
        np.testing.assert_allclose(np.asarray(mine, dtype=np.float64), np.asarray(theirs, dtype=np.float64))
    macro = reference.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    np.testing.assert_allclose((ours.macro_precision, ours.macro_recall, ours.macro_f1), macro[:3])
    np.testing.assert_array_equal(found.confusion, reference.confusion_matrix(labels, predicted, labels=range(n_classes)))


def test_wilson_interval_by_hand() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662, 15 of 148 gives 0.0624 to 0.1605
    assert metrics.wilson_interval(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert metrics.wilson_interval(15, 148, 0.95) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    # no failure in n: the interval is n / (n + z²) to 1; z = 1.959964, z² = 3.841459, 10 / 13.841459 = 0.722467
    assert metrics.wilson_interval(10, 10, 0.95) == pytest.approx((0.722467, 1.0), abs=1e-6)
    assert metrics.wilson_interval(0, 10, 0.95)[0] == 0.0
    assert metrics.wilson_interval(0, 0, 0.95) == (0.0, 1.0)


def test_wilson_interval_covers() -> None:
    rng = np.random.default_rng(0)
    right = rng.binomial(200, 0.9, 2000)
    covered = [low <= 0.9 <= high for low, high in (metrics.wilson_interval(int(k), 200, 0.95) for k in right)]
    assert 0.93 < np.mean(covered) < 0.97


def test_bootstrap_of_counts_is_that_of_rows() -> None:
    labels, p = draw(3, 150, 3)
    predicted = p.argmax(axis=1)
    _, found = metrics.bootstrap_f1(metrics.confusion_matrix(labels, predicted, 3), level=0.9, resamples=4000)
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(400):
        rows = rng.integers(0, 150, 150)
        drawn.append(reference.f1_score(labels[rows], predicted[rows], average="macro", zero_division=0))
    assert found == pytest.approx(tuple(np.quantile(drawn, [0.05, 0.95])), abs=0.015)


def test_bootstrap_is_the_same_every_time_and_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    confusion = np.array([[50, 10], [5, 35]])
    first = metrics.bootstrap_f1(confusion, level=0.95, resamples=1000)
    assert metrics.bootstrap_f1(confusion, level=0.95, resamples=1000) == first
    monkeypatch.setattr(metrics, "_CELLS_AT_ONCE", 40)
    assert metrics.bootstrap_f1(confusion, level=0.95, resamples=1000) == first


def test_classes_that_do_not_occur_are_left_out_and_said() -> None:
    labels = np.array([0, 0, 1, 1])
    p = np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.1, 0.6, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1]])
    found = metrics.classification_scores(labels, p, level=0.95, bins=5, resamples=100)
    # class 0: precision 1/1, recall 1/2, F1 2/3; class 1: 2/2, 2/2, 1; class 2 is predicted once, never occurs: 0; 3: neither
    np.testing.assert_allclose(found.classes.f1, [2 / 3, 1, 0, 0])
    assert found.classes.absent.tolist() == [False, False, False, True]
    assert found.classes.macro_f1 == pytest.approx((2 / 3 + 1 + 0) / 3)
    said = metrics.per_class_json(found, ["a", "b", "c", "d"])
    assert said["c"] == {"precision": 0.0, "recall": None, "f1": None, "f1_low": None, "f1_high": None, "support": 0}
    assert said["d"]["precision"] is None
    assert metrics.as_json(found)["classes_without_test_rows"] == 2


@given(seed=st.integers(0, 10**6), n=st.integers(1, 100), n_classes=st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_several_labels_a_row_are_counted_as_scikit_learn_does(seed: int, n: int, n_classes: int) -> None:
    rng = np.random.default_rng(seed)
    actual = rng.random((n, n_classes)) < 0.3
    p = metrics.sigmoid(rng.normal(0, 2, (n, n_classes)) + 2 * actual - 1)
    found = metrics.multi_label_scores(actual, p, level=0.95, bins=10, resamples=100)
    assert found.accuracy == pytest.approx(reference.accuracy_score(actual, p >= 0.5))
    each = reference.precision_recall_fscore_support(actual, p >= 0.5, zero_division=0)
    for mine, theirs in zip((found.classes.precision, found.classes.recall, found.classes.f1), each[:3], strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs, dtype=np.float64))
    losses = [reference.log_loss(actual[:, c], p[:, c], labels=[False, True]) for c in range(n_classes)]
    assert found.log_loss == pytest.approx(np.mean(losses))
    assert found.confusion is None


def test_weights_of_rows_and_counts_of_cells_give_the_same_intervals() -> None:
    labels, p = draw(9, 200, 3)
    predicted = p.argmax(axis=1)
    one_hot = labels[:, None] == np.arange(3)
    by_rows = metrics.bootstrap_f1_rows(one_hot, predicted[:, None] == np.arange(3), level=0.95, resamples=3000)
    by_cells = metrics.bootstrap_f1(metrics.confusion_matrix(labels, predicted, 3), level=0.95, resamples=3000)
    np.testing.assert_allclose(np.array(by_rows[0]), np.array(by_cells[0]), atol=0.01)


def test_no_rows_are_no_crash() -> None:
    found = metrics.classification_scores(np.zeros(0, dtype=np.int64), np.zeros((0, 2)), level=0.95, bins=5, resamples=100)
    assert (found.n, found.accuracy, found.accuracy_interval) == (0, 0.0, Interval(0.0, 1.0))


def test_softmax_of_large_logits() -> None:
    p = metrics.softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]], dtype=np.float32))
    np.testing.assert_allclose(p, [[1, 0], [0.5, 0.5]])
