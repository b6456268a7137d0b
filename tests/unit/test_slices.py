from __future__ import annotations

import numpy as np

from dagobert import slices


def test_lengths_are_grouped_by_powers_of_two_up_to_the_limit() -> None:
    group, names = slices.length_groups(np.array([3, 16, 17, 32, 40, 41, 80, 81]), 40)
    assert names == [
        "up to 16 tokens",
        "17 to 32 tokens",
        "33 to 40 tokens",
        "41 to 80 (cut)",
        "more than 80 (cut)",
    ]
    assert group.tolist() == [0, 0, 1, 1, 2, 3, 3, 4]


def test_a_slice_without_rows_is_left_out() -> None:
    found = slices.slice_scores(np.array([0, 0, 2]), ["a", "b", "c"], np.array([True, False, True]), 0.95)
    assert [(s.name, s.n, s.accuracy) for s in found] == [("a", 2, 0.5), ("c", 1, 1.0)]
    assert found[0].interval.low < 0.5 < found[0].interval.high


def test_rare_values_are_put_together() -> None:
    group, names = slices.category_groups(["x", "y", "y", "z", "w"], most=2)
    assert names == ["y", "w", "2 others"]
    assert group.tolist() == [2, 0, 0, 2, 1]
