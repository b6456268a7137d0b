from __future__ import annotations

import numpy as np
import pytest

from dagobert.baseline import Baseline
from dagobert.evaluation import Evaluation, TestRows, confused_pairs, judge, metrics_json, most_confident_mistakes

NAMES = ["no", "yes"]


def rows(answers: np.ndarray) -> TestRows:
    n = len(answers)
    return TestRows(
        row_ids=np.arange(n),
        answers=answers,
        texts=[f"text {i}" for i in range(n)],
        tokens=np.full(n, 10),
        source_files=["a.csv"] * n,
        source_lines=np.arange(n) + 2,
    )


def judged(labels: list[int], logits: np.ndarray, **more: object) -> Evaluation:
    answers = np.array(labels)[:, None] == np.arange(logits.shape[1])
    settings = {"max_length": 64, "level": 0.95, "bins": 10, "resamples": 200} | more
    return judge(rows(answers), logits, NAMES, **settings)  # type: ignore[arg-type]


LOGITS = np.log(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]))


def test_mistakes_come_surest_first() -> None:
    found = judged([1, 1, 1, 1], LOGITS)  # rows 0 (0.9) and 2 (0.6) are wrong
    assert most_confident_mistakes(found, 10).tolist() == [0, 2]
    assert most_confident_mistakes(found, 1).tolist() == [0]
    assert found.majority_share == 1.0


def test_the_baseline_is_compared_on_the_same_rows() -> None:
    other = Baseline(np.array([[0.1, 0.9]] * 4), "always yes", 0)
    found = judged([0, 1, 1, 1], LOGITS, baseline=other)  # model wrong on row 2, baseline on row 0
    assert found.comparison is not None
    assert (found.comparison.only_first, found.comparison.only_second, found.comparison.difference) == (1, 1, 0.0)
    said = metrics_json(found, {"step": 4, "loss": 0.5, "note": "x"})
    assert list(said) == ["test", "baseline", "against_baseline", "validation"]
    assert said["validation"] == {"step": 4, "loss": 0.5}
    assert said["test"]["per_class"]["yes"]["support"] == 3


def test_test_rows_do_not_choose_the_temperature() -> None:
    validation = (np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), np.array([0, 1, 1]))
    one, other = judged([0, 1, 0, 1], LOGITS, validation=validation), judged([1, 0, 1, 0], LOGITS, validation=validation)
    assert one.calibration is not None
    assert other.calibration is not None
    assert one.calibration.temperature == other.calibration.temperature


def test_several_labels_a_row() -> None:
    answers = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], dtype=bool)
    logits = np.array([[2.0, -2.0], [2.0, -1.0], [-2.0, 3.0], [1.0, 1.0]])  # right; misses "yes"; adds "yes"; adds "no"
    found = judge(rows(answers), logits, NAMES, multi=True, max_length=64, level=0.95, bins=5, resamples=100)
    assert found.correct.tolist() == [True, False, False, False]
    assert most_confident_mistakes(found, 3).tolist() == [2, 1, 3]  # surest wrong decisions: 3.0, 1.0, 1.0
    # by (actual, predicted) of no, yes, none: both labels right twice and once; missed yes → none; none → yes; none → no
    assert confused_pairs(found).tolist() == [[2, 0, 0], [0, 1, 1], [1, 1, 0]]
    # confidence is that of the least sure label: σ(1) for row 1
    assert found.confidence[1] == pytest.approx(1 / (1 + np.exp(-1)))
