from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagobert import splitting
from dagobert.errors import LeakageError, SplitError
from dagobert.splitting import (
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    Sizes,
    apportion,
    by_hash,
    by_position,
    k_fold,
    leakage,
    leaks,
    make_units,
    missing_classes,
    shuffled,
    stratified,
    take,
    wanted_sizes,
)


def keys(values: Any) -> Any:
    return splitting.mixed(np.asarray(values, dtype=np.uint64), 99)


def counts(side: Any) -> list[int]:
    return [int((side == code).sum()) for code in range(4)]


@st.composite
def corpora(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """Text keys with duplicates, labels, groups."""
    n = draw(st.integers(8, 60))
    texts = draw(st.lists(st.integers(0, n), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    groups = draw(st.lists(st.integers(0, n // 2), min_size=n, max_size=n))
    return keys(texts), np.array(labels, dtype=np.int64), keys(groups)


def test_sizes_are_rows_shares_or_all() -> None:
    assert wanted_sizes(1000, 100, 0.1, 50) == Sizes(100, 100, 50)
    assert wanted_sizes(1000, "all", 0.1, 0.25) == Sizes(None, 100, 250)


@pytest.mark.parametrize(
    ("n_rows", "train", "validation", "test", "message"),
    [
        (100, 80, 15, 10, "asks for 80 train \\+ 15 validation \\+ 10 test = 105 rows, but the data has 100"),
        (10, "all", 5, 5, "asks for 1 or more train"),
        (100, 0, 1, 1, "split.train_size is 0"),
        (100, 1.5, 1, 1, "split.train_size is 1.5"),
        (100, 10, 0.001, 1, "split.validation_size is 0.001: of 100 rows that is none"),
        (100, 10, 1, -3, "split.test_size is -3"),
    ],
)
def test_sizes_that_cannot_be(n_rows: int, train: Any, validation: Any, test: Any, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        wanted_sizes(n_rows, train, validation, test)


def test_units_join_texts_and_groups() -> None:
    # rows 0 and 2 share a text, 2 and 3 a group: one unit of three
    units = make_units(keys([7, 8, 7, 9]), keys([1, 2, 3, 3]))
    assert units.of_row.tolist().count(units.of_row[0]) == 3
    assert units.of_row[0] == units.of_row[2] == units.of_row[3] != units.of_row[1]
    assert sorted(units.size.tolist()) == [1, 3]


def test_class_shares_are_the_same_on_every_side() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    side = stratified(make_units(keys(np.arange(1000))), labels, Sizes(200, 50, 100), 42)
    assert counts(side) == [200, 50, 100, 650]
    for code, want in ((TRAIN, [120, 60, 20]), (VALIDATION, [30, 15, 5]), (TEST, [60, 30, 10])):
        assert np.bincount(labels[side == code]).tolist() == want


def test_a_rare_class_stands_on_every_side() -> None:
    labels = np.array([0] * 997 + [1] * 3)
    side = stratified(make_units(keys(np.arange(1000))), labels, Sizes(None, 100, 100), 0)
    assert sorted(side[-3:].tolist()) == [TRAIN, VALIDATION, TEST]
    assert counts(side) == [800, 100, 100, 0]


@settings(max_examples=50, deadline=None)
@given(corpora(), st.integers(0, 2**32 - 1), st.data())
def test_every_strategy_keeps_units_whole(corpus: tuple[Any, Any, Any], seed: int, data: st.DataObject) -> None:
    text, labels, groups = corpus
    n = len(text)
    units = make_units(text, groups if data.draw(st.booleans()) else None)
    sizes = Sizes(data.draw(st.sampled_from([None, 1, n // 2])), n // 5 + 1, n // 4)
    position = np.arange(n, dtype=np.int64)
    sides = {
        "stratified": stratified(units, labels, sizes, seed),
        "random": shuffled(units, sizes, seed),
        "ordered": by_position(units, position, sizes),
        "hash": by_hash(units, 0.5, 0.25, 0.25, seed),
    }
    for name, side in sides.items():
        assert len(side) == n
        assert np.array_equal(side, side[units.first][units.of_row]), name
        assert leaks(side, text) == []
        if name != "hash":
            got = counts(side)
            assert got[TEST] <= sizes.test
            assert got[VALIDATION] <= sizes.validation
            assert sizes.train is None or got[TRAIN] <= sizes.train


@settings(max_examples=50, deadline=None)
@given(corpora(), st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(corpus: tuple[Any, Any, Any], seed: int, random: Any) -> None:
    text, labels, _ = corpus
    labels = (text % 3).astype(np.int64)  # rows of one text have one label here
    order = np.array(random.sample(range(len(text)), len(text)))
    sizes = Sizes(len(text) // 2, len(text) // 5, len(text) // 5)
    for draw in (stratified, lambda u, _, s, k: shuffled(u, s, k)):
        before = draw(make_units(text), labels, sizes, seed)
        after = draw(make_units(text[order]), labels[order], sizes, seed)
        assert np.array_equal(before[order], after)


@settings(max_examples=50, deadline=None)
@given(corpora(), st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_by_hash_no_row_changes_side_when_data_is_added(corpus: tuple[Any, Any, Any], seed: int, more: int) -> None:
    text, _, _ = corpus
    added = np.concatenate([text, keys(np.arange(10_000, 10_000 + more))])
    before = by_hash(make_units(text), "all", 0.1, 0.2, seed)
    after = by_hash(make_units(added), "all", 0.1, 0.2, seed)
    assert np.array_equal(before, after[: len(text)])


def test_by_hash_meets_its_shares_about() -> None:
    side = by_hash(make_units(keys(np.arange(20_000))), 0.5, 0.1, 0.2, 7)
    # binomial standard deviation of 20,000 · 0.2: 57 rows
    assert np.allclose(counts(side), [10_000, 2_000, 4_000, 4_000], atol=300)


@pytest.mark.parametrize("sizes", [(100, 0.1, 0.1), (0.5, 10, 0.1), (0.9, 0.1, 0.1), ("all", 0.5, 0.5)])
def test_by_hash_takes_shares_only(sizes: tuple[Any, Any, Any]) -> None:
    with pytest.raises(SplitError, match="share"):
        by_hash(make_units(keys(np.arange(50))), *sizes, 0)


def test_ordered_is_as_the_rows_come() -> None:
    side = by_position(make_units(keys(np.arange(10))), np.arange(10), Sizes(4, 2, 3))
    assert side.tolist() == [0, 0, 0, 0, 3, 1, 1, 2, 2, 2]
    # by time, newest first in the file
    side = by_position(make_units(keys(np.arange(6))), np.array([6, 5, 4, 3, 2, 1]), Sizes(None, 1, 2))
    assert side.tolist() == [2, 2, 1, 0, 0, 0]


def test_every_row_is_tested_in_one_fold() -> None:
    text = keys(np.arange(103) // 2)
    labels = (np.arange(103) // 2 % 3).astype(np.int64)
    units = make_units(text)
    tested = np.zeros(103, dtype=int)
    for fold in range(5):
        side = k_fold(units, labels, 5, fold, "all", 10, 42)
        assert leaks(side, text) == []
        assert 15 <= counts(side)[TEST] <= 26
        assert counts(side)[UNUSED] == 0
        tested += side == TEST
    assert tested.tolist() == [1] * 103
    with pytest.raises(SplitError, match=r"split\.fold is 5: with split\.folds 5 it is 0 to 4"):
        k_fold(units, labels, 5, 5, "all", 10, 42)


def test_a_given_split_is_read_in_many_spellings() -> None:
    side = splitting.given(["Train", "val", "dev", "TEST", "unused", None, " training "])
    assert side.tolist() == [TRAIN, VALIDATION, VALIDATION, TEST, UNUSED, UNUSED, TRAIN]
    with pytest.raises(SplitError, match="holds 'holdout'"):
        splitting.given(["train", "holdout"])
    with pytest.raises(SplitError, match="no row on the side validation and test"):
        splitting.given(["train", "train"])


def test_the_gate_finds_one_pair_a_text() -> None:
    text = keys([1, 2, 3, 2, 2, 1])
    assert leaks(np.array([TRAIN, TRAIN, TEST, TRAIN, UNUSED, TRAIN], np.int8), text) == []
    side = np.array([TRAIN, TRAIN, TEST, VALIDATION, TEST, TEST], np.int8)
    found = leaks(side, text)
    assert [pair for pair in found if pair == (0, 5)]
    assert len(found) == 2
    error = leakage(side, [(0, 5)], {0: "a.csv:2", 5: "a.csv:7"})
    assert isinstance(error, LeakageError)
    assert str(error).startswith("1 text stands on two sides of the split, such as a.csv:2 (train) and a.csv:7 (test): ")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), max_size=30), st.integers(0, 60))
def test_take_never_takes_too_much_and_fills_what_it_can(sizes: list[int], quota: int) -> None:
    each = np.array(sizes, dtype=np.int64)
    taken = take(each, quota)
    left = quota - int(each[taken].sum())
    assert left >= 0
    assert not (each[~taken] <= left).any()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.floats(0, 1))
def test_apportion_gives_what_is_asked(available: list[int], share: float) -> None:
    rows = np.array(available, dtype=np.int64)
    want = int(rows.sum() * share)
    quota = apportion(rows, want)
    assert quota.sum() == want
    assert (quota >= 0).all()
    assert (quota <= rows).all()


def test_missing_classes_are_named() -> None:
    found = missing_classes([[5, 0], [1, 1], [0, 3], [0, 0]], ["negative", "positive"])
    assert found == ["the train side has no row of 'positive'", "the test side has no row of 'negative'"]
