from __future__ import annotations

import numpy as np

from dagobert.baseline import tfidf_logistic_regression

TRAIN = ["a good film", "a great film", "bad acting", "awful plot", "good fun", "bad bad bore"]
LABELS = np.array([1, 1, 0, 0, 1, 0])


def test_it_learns_words_and_is_the_same_every_time() -> None:
    test = ["great good fun", "awful bad"]
    found = tfidf_logistic_regression(TRAIN, LABELS, test, 2)
    assert found.p.argmax(axis=1).tolist() == [1, 0]
    np.testing.assert_allclose(found.p.sum(axis=1), 1)
    np.testing.assert_array_equal(found.p, tfidf_logistic_regression(TRAIN, LABELS, test, 2).p)
    assert found.features > 0


def test_a_class_without_training_rows_gets_nothing() -> None:
    found = tfidf_logistic_regression(TRAIN, np.where(LABELS == 1, 2, 0), ["good"], 3)
    assert found.p.shape == (1, 3)
    assert found.p[0, 1] == 0


def test_one_class_only_answers_it() -> None:
    found = tfidf_logistic_regression(TRAIN, np.zeros(6, dtype=np.int64), ["good", "bad"], 2)
    assert found.p.tolist() == [[1, 0], [1, 0]]
    assert "one class only" in found.description


def test_texts_without_words_answer_the_shares() -> None:
    found = tfidf_logistic_regression(["!", "?", "…"], np.array([0, 0, 1]), ["good"], 2)
    np.testing.assert_allclose(found.p, [[2 / 3, 1 / 3]])
    assert "share no words" in found.description
