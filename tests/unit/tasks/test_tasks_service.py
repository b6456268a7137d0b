from __future__ import annotations

from typing import Any

import pytest

from tasks.scoring import verdict


def found(n: int, difference: float, p: float) -> dict[str, Any]:
    return {
        "n": n,
        "accuracy_difference": difference,
        "mcnemar_mid_p": p,
        "candidate_accuracy": 0.9,
        "incumbent_accuracy": 0.9 - difference,
    }


@pytest.mark.parametrize(
    ("figures", "promoted", "words"),
    [
        ({}, True, "no model was in service"),
        (found(1000, 0.02, 0.01), True, "better: +2.0 points on 1,000 held-out rows (p = 0.01): 90.0% against 88.0%"),
        (found(1000, 0.02, 0.06), False, "no more than chance"),
        (found(1000, -0.02, 0.01), False, "worse"),
        (found(29, 0.2, 0.01), False, "only 29 held-out rows"),
    ],
)
def test_only_what_is_better_by_more_than_chance_is_promoted(figures: dict[str, Any], promoted: bool, words: str) -> None:
    assert verdict(figures) == (promoted, verdict(figures)[1])
    assert words in verdict(figures)[1]
