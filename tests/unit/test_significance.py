from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dagobert import significance


def test_mcnemar_by_hand() -> None:
    # b = 1, c = 5, n = 6: P(B ≤ 1) = (1 + 6) / 64 = 7/64, exact p = 14/64; P(B = 1) = 6/64, mid-p = (14 − 6) / 64
    assert significance.mcnemar(1, 5) == pytest.approx((14 / 64, 8 / 64))
    # b = c = 2, n = 4: exact 1; mid-p = 1 − P(B = 2) = 1 − 6/16
    assert significance.mcnemar(2, 2) == pytest.approx((1.0, 10 / 16))
    # b = 0, c = 3: exact 2 · 1/8, mid-p 1/8
    assert significance.mcnemar(0, 3) == pytest.approx((2 / 8, 1 / 8))
    assert significance.mcnemar(0, 0) == (1.0, 1.0)


def test_mcnemar_of_a_published_example() -> None:
    # Fagerland, Lydersen and Laake 2013, table 1 (airway hyper-responsiveness before and after transplantation): b = 1, c = 7
    exact, mid = significance.mcnemar(1, 7)
    assert (round(exact, 3), round(mid, 3)) == (0.07, 0.039)


@given(b=st.integers(0, 5000), c=st.integers(0, 5000))
@settings(max_examples=50, deadline=None)
def test_mcnemar_is_the_binomial_test(b: int, c: int) -> None:
    exact, mid = significance.mcnemar(b, c)
    assert exact == pytest.approx(stats.binomtest(b, b + c).pvalue if b + c else 1.0, rel=1e-7, abs=1e-300)
    assert mid <= exact
    assert significance.mcnemar(c, b) == (exact, mid)


def test_paired_difference_by_hand() -> None:
    first = np.array([True] * 60 + [True] * 20 + [False] * 8 + [False] * 12)
    second = np.array([True] * 60 + [False] * 20 + [True] * 8 + [False] * 12)
    found = significance.compare_correct(first, second, level=0.95, resamples=20_000)
    assert (found.n, found.only_first, found.only_second) == (100, 20, 8)
    assert found.difference == pytest.approx(0.12)
    # Wald: s.e. = √(b + c − (b − c)²/n) / n = √(28 − 1.44) / 100 = 0.0515, so 0.12 ± 1.96 · 0.0515 = 0.019 to 0.221
    assert found.interval == pytest.approx((0.019, 0.221), abs=0.006)
    assert significance.compare_correct(first, second, level=0.95, resamples=20_000) == found


def test_the_same_answers_differ_in_nothing() -> None:
    right = np.array([True, False, True])
    found = significance.compare_correct(right, right, level=0.95, resamples=100)
    assert (found.difference, found.interval, found.p_mid) == (0.0, (0.0, 0.0), 1.0)


def test_no_rows_say_nothing() -> None:
    none = np.zeros(0, dtype=bool)
    found = significance.compare_correct(none, none, level=0.95, resamples=100)
    assert found.interval == (-1.0, 1.0)
    assert found.as_json()["mcnemar_mid_p"] == 1.0
