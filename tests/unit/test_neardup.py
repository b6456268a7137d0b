from __future__ import annotations

import random

import pytest

from dagobert.neardup import NearDuplicates, shingles


def test_runs_of_three_words() -> None:
    assert shingles("A good, good film!") == [b"a good good", b"good good film"]
    assert shingles("x x x x x") == [b"x x x"]
    assert shingles("Too short") == [b"too short"]
    assert shingles("?!") == []


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_what_the_estimate_finds_is_what_counting_finds(threshold: float) -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(400)]
    near = NearDuplicates(threshold)
    right = wrong = 0
    for row in range(40):
        base = rng.choices(words, k=120)
        cut = rng.choice([0, 2, 4, 30, 60])  # that many words at the end are others
        other = base[: 120 - cut] + rng.choices(words, k=cut)
        a, b = set(shingles(" ".join(base))), set(shingles(" ".join(other)))
        share = len(a & b) / len(a | b)
        assert near.find(2 * row, " ".join(base), 0) is None
        found = near.find(2 * row + 1, " ".join(other), 0)
        assert found in (None, 2 * row)
        if abs(share - threshold) > 0.13:  # three standard deviations of the estimate
            right += (found is not None) == (share > threshold)
            wrong += (found is not None) != (share > threshold)
    assert wrong == 0
    assert right > 20


def test_other_labels_are_not_compared_and_the_first_is_named() -> None:
    near = NearDuplicates(0.5)
    text = " ".join(f"w{i}" for i in range(50))
    assert [near.find(row, text, group) for row, group in enumerate([0, 1, 0, 1, 0])] == [None, None, 0, 1, 0]
    assert near.find(9, "?!", 0) is None
