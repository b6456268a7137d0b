from __future__ import annotations

import numpy as np
import pytest

from dagobert import calibration, metrics


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.85, 0.9, 0.6, 0.55])
    correct = np.array([True, True, False, True, False])
    # five bins of 0.2: (0.8, 1] holds 0.95, 0.85, 0.9: mean 0.9, accuracy 2/3; (0.4, 0.6] holds the others: 0.575, 1/2
    # error = 3/5 · |2/3 − 0.9| + 2/5 · |0.5 − 0.575| = 0.14 + 0.03
    assert calibration.expected_calibration_error(confidence, correct, 5) == pytest.approx(0.17)
    table = calibration.reliability(confidence, correct, 5)
    assert table.count.tolist() == [0, 0, 2, 0, 3]
    assert np.isnan(table.accuracy[0])


def test_certainty_stands_in_the_last_bin() -> None:
    table = calibration.reliability(np.array([1.0, 0.0]), np.array([True, False]), 4)
    assert table.count.tolist() == [1, 0, 0, 1]


def test_temperature_is_found_again() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 3))
    p = metrics.softmax(logits)
    labels = (p.cumsum(axis=1) > rng.random((len(p), 1))).argmax(axis=1)  # drawn from the model's own probabilities: T = 1
    assert calibration.fit_temperature(logits, labels) == pytest.approx(1.0, abs=0.03)
    assert calibration.fit_temperature(3 * logits, labels) == pytest.approx(3.0, abs=0.1)


def test_temperature_is_the_minimum_of_the_loss() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 3, (300, 4)).astype(np.float32)
    labels = np.where(rng.random(300) < 0.6, logits.argmax(axis=1), rng.integers(0, 4, 300))
    best = calibration.fit_temperature(logits, labels)
    loss = {t: metrics.log_loss(labels, metrics.softmax(logits / t)) for t in (best * 0.98, best, best * 1.02)}
    assert min(loss, key=lambda t: loss[t]) == best


def test_temperature_without_an_optimum_is_bounded() -> None:
    logits = np.array([[4.0, 0.0], [0.0, 4.0]])
    assert calibration.fit_temperature(logits, np.array([0, 1])) == 0.05  # all right: the surer the better
    assert calibration.fit_temperature(logits, np.array([1, 0])) == 20.0  # all wrong: the less sure the better
    assert calibration.fit_temperature(np.zeros((0, 2)), np.zeros(0, dtype=np.int64)) == 1.0
