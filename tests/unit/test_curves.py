from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from dagobert import curves


@given(seed=st.integers(0, 10**6), n=st.integers(2, 300), places=st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_areas_are_those_of_scikit_learn(seed: int, n: int, places: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    positive[:2] = [True, False]
    score = np.asarray(np.round(rng.random(n) + 0.3 * positive, places), dtype=np.float64)  # rounded: many ties
    swept = curves.sweep(positive, score)
    assert curves.roc(swept)[2] == pytest.approx(reference.roc_auc_score(positive, score))
    assert curves.precision_recall(swept)[2] == pytest.approx(reference.average_precision_score(positive, score))


def test_sweep_by_hand() -> None:
    # highest first: 0.9 hit; 0.6 hit and false alarm (a tie); 0.1 false alarm
    swept = curves.sweep(np.array([False, True, True, False]), np.array([0.1, 0.9, 0.6, 0.6]))
    assert swept.threshold.tolist() == [0.9, 0.6, 0.1]
    assert (swept.hits.tolist(), swept.false_alarms.tolist()) == ([1, 2, 2], [0, 1, 2])
    assert swept.precision.tolist() == pytest.approx([1, 2 / 3, 1 / 2])


def test_one_class_only_has_no_area() -> None:
    swept = curves.sweep(np.array([True, True]), np.array([0.2, 0.3]))
    assert np.isnan(curves.roc(swept)[2])
    assert np.isnan(curves.precision_recall(curves.sweep(np.array([False]), np.array([0.2])))[2])


def test_coverage_by_hand() -> None:
    threshold, share, accuracy = curves.coverage(np.array([True, False, True, True]), np.array([0.9, 0.8, 0.7, 0.6]))
    assert threshold.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert share.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert accuracy.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 3 / 4])


def test_two_classes_have_one_curve() -> None:
    assert curves.drawn_classes(np.array([5, 5]), 10) == [1]
    assert curves.drawn_classes(np.array([10, 0]), 10) == []
    assert curves.drawn_classes(np.array([5, 0, 5]), 10) == [0, 2]


def test_a_long_curve_is_thinned_and_keeps_its_ends_and_shape() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(50_000) < 0.5
    score = rng.normal(0, 1, 50_000) + 1.5 * positive
    swept = curves.sweep(positive, score)
    x, y, area = curves.roc(swept)
    assert len(x) <= curves.MOST_POINTS + 2
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(y, x) == pytest.approx(area, abs=2e-3)
