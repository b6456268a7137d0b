"""Is one classifier better than another on the same rows, or was it luck? Paired tests, because the rows are the same.

McNemar's test looks only at the rows that exactly one of the two got right: b (only the first) and c (only the second). Under
"equally good" b is binomial(b + c, ½). The mid-p variant is the one to read: the exact one is conservative (Fagerland, Lydersen
and Laake 2013). The tail is summed here, term by term, so that p does not change with a library's version.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dagobert.metrics import BOOTSTRAP_SEED, Interval

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class PairedComparison:
    """Two classifiers on the same N rows. `difference` is accuracy of the first less that of the second."""

    n: int
    only_first: int
    only_second: int
    difference: float
    interval: Interval
    p_exact: float
    p_mid: float

    def as_json(self) -> dict[str, Any]:
        """Plain values, rounded to six places."""
        return {
            "n": self.n,
            "only_first_right": self.only_first,
            "only_second_right": self.only_second,
            "accuracy_difference": round(self.difference, 6),
            "accuracy_difference_low": round(self.interval.low, 6),
            "accuracy_difference_high": round(self.interval.high, 6),
            "mcnemar_exact_p": round(self.p_exact, 6),
            "mcnemar_mid_p": round(self.p_mid, 6),
        }


def mcnemar(b: int, c: int) -> tuple[float, float]:
    """Two-sided McNemar test.

    Args:
        b: rows only the first classifier got right.
        c: rows only the second got right.
    Returns:
        (exact p, mid-p). Both are 1 when the two never differ.
    """
    n, smaller = b + c, min(b, c)
    if n == 0:
        return 1.0, 1.0
    at = exp(lgamma(n + 1) - lgamma(smaller + 1) - lgamma(n - smaller + 1) - n * log(2))  # P(B = smaller)
    tail = term = 1.0  # in units of `at`: P(B = k − 1) = P(B = k) · k / (n − k + 1)
    for k in range(smaller, 0, -1):
        term *= k / (n - k + 1)
        tail += term
        if term < tail * 1e-17:
            break
    exact = min(1.0, 2 * tail * at)
    # Fagerland et al. 2013, equation 3: twice the tail less the probability of what was seen; 1 less it when b = c.
    mid = 1 - at if b == c else (2 * tail - 1) * at
    return exact, mid


def compare_correct(first: BoolArray, second: BoolArray, *, level: float, resamples: int) -> PairedComparison:
    """Compare two classifiers by which rows they got right.

    The interval is the percentile bootstrap of the paired difference: rows are drawn with both their outcomes, which is a
    multinomial draw over (only first, only second, the rest).

    Args:
        first: whether the first classifier was right, shape (N,), a row each.
        second: the same of the second, the same rows in the same order.
        level: confidence level.
        resamples: bootstrap draws.
    """
    assert first.shape == second.shape
    n = len(first)
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    exact, mid = mcnemar(b, c)
    if n == 0:
        return PairedComparison(0, 0, 0, 0.0, Interval(-1.0, 1.0), exact, mid)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    draws = rng.multinomial(n, [b / n, c / n, (n - b - c) / n], size=resamples)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / n, [(1 - level) / 2, (1 + level) / 2])
    return PairedComparison(n, b, c, (b - c) / n, Interval(float(low), float(high)), exact, mid)
