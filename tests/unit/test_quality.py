from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagobert.quality import GROUP_REASONS, Contract, repeats, row_problems


def contract(**changes: Any) -> Contract:
    rules: dict[str, Any] = {
        "unreadable": "quarantine",
        "empty": "quarantine",
        "missing_label": "quarantine",
        "unknown_label": "quarantine",
        "wrong_length": "quarantine",
        "conflicting_labels": "quarantine",
        "duplicates": "keep_first",
        "normalized_duplicates": "keep_first",
        "near_duplicates": "keep",
        "near_duplicate_threshold": 0.9,
        "min_chars": 1,
        "max_chars": None,
        "classes": None,
    }
    return Contract(**{**rules, **changes})


def found(texts: str, labels: str, **changes: Any) -> list[tuple[str | None, int]]:
    """One letter a row: equal letters are equal texts, upper case differs from lower case in case only."""
    rules = contract(**changes)
    exact = np.array([ord(c) for c in texts], np.uint64)
    normalized = np.array([ord(c.lower()) for c in texts], np.uint64) if rules.normalizes else None
    got = repeats(exact, normalized, np.array([ord(c) for c in labels], np.int64), np.array([c != " " for c in texts]), rules)
    return [(None if code < 0 else GROUP_REASONS[code], int(at)) for code, at in zip(got.reason, got.first, strict=True)]


GOOD = (None, -1)


def test_the_first_of_equal_rows_stays() -> None:
    assert found("abab", "xxxx") == [GOOD, GOOD, ("duplicate", 0), ("duplicate", 1)]
    assert found("aba", "xxx", duplicates="quarantine", normalized_duplicates="keep") == [
        ("duplicate", 2),
        GOOD,
        ("duplicate", 0),
    ]
    assert found("aaA", "xxx", duplicates="keep", normalized_duplicates="keep") == [GOOD] * 3


def test_rows_that_differ_in_case_only() -> None:
    assert found("aAa", "xxx") == [GOOD, ("normalized_duplicate", 0), ("duplicate", 0)]
    assert found("aAa", "xxx", normalized_duplicates="keep") == [GOOD, GOOD, ("duplicate", 0)]


def test_of_one_text_under_two_labels_nobody_knows_which_is_right() -> None:
    conflict = "conflicting_labels"
    assert found("abaa", "xxyx") == [(conflict, 2), GOOD, (conflict, 0), (conflict, 2)]
    assert found("aA", "xy") == [(conflict, 1), (conflict, 0)]
    assert found("aA", "xy", normalized_duplicates="keep") == [GOOD, GOOD]
    assert found("aaa", "xyx", conflicting_labels="keep_first") == [GOOD, (conflict, 0), ("duplicate", 0)]
    assert found("aaa", "xyx", conflicting_labels="keep") == [GOOD, GOOD, ("duplicate", 0)]


def test_rows_set_aside_before_do_not_count() -> None:
    assert found(" a a", "xxxx") == [GOOD, GOOD, GOOD, ("duplicate", 1)]
    assert found("", "") == []


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("aAbB "), st.sampled_from("xy")), max_size=12),
    st.sampled_from(["quarantine", "keep_first", "keep"]),
    st.sampled_from(["keep_first", "quarantine", "keep"]),
    st.sampled_from(["keep_first", "quarantine", "keep"]),
)
def test_what_is_left_keeps_the_contract(rows: list[tuple[str, str]], conflicts: str, duplicates: str, normalized: str) -> None:
    texts, labels = "".join(t for t, _ in rows), "".join(y for _, y in rows)
    got = found(texts, labels, conflicting_labels=conflicts, duplicates=duplicates, normalized_duplicates=normalized)
    left = [row for row, (reason, _) in zip(rows, got, strict=True) if reason is None and row[0] != " "]
    if duplicates != "keep":
        assert len(set(left)) == len(left)
    if normalized != "keep":
        assert len({(t.lower(), y) for t, y in left}) == len({(t, y) for t, y in left})
    if conflicts != "keep":
        texts_left = {t.lower() if normalized != "keep" else t for t, _ in left}
        assert len({(t.lower() if normalized != "keep" else t, y) for t, y in left}) == len(texts_left)
    for (text, label), (reason, first) in zip(rows, got, strict=True):
        if reason is not None:
            other, other_label = rows[first]
            assert other.lower() == text.lower()
            assert (other_label != label) == (reason == "conflicting_labels")


@pytest.mark.parametrize(
    ("row", "changes", "reason", "detail"),
    [
        (("ok", "ok", "1"), {}, None, None),
        ((None, None, "1"), {}, "missing_text", "there is no text"),
        (("<br>", "", "1"), {}, "empty_text", "nothing is left after cleaning"),
        (("ok", "ok", None), {}, "missing_label", "there is no label"),
        (("ok", "ok", ""), {}, "missing_label", "there is no label"),
        (("ok", "ok", None), {"needs_label": False}, None, None),
        (("ok", "ok", "3"), {"classes": ("1", "2")}, "unknown_label", "the label is 3"),
        (("ok", "ok", "2"), {"classes": ("1", "2")}, None, None),
        (("ok", "ok", "\x01a\x01b"), {"classes": ("a", "b")}, None, None),
        (("ok", "ok", "\x01a\x01c"), {"classes": ("a", "b")}, "unknown_label", "the label is  a c"),
        (("ok", "ok", "1"), {"min_chars": 3}, "too_short", "2 characters"),
        (("ok", "ok", "1"), {"max_chars": 1}, "too_long", "2 characters"),
        (("日本", "日本", "1"), {"max_chars": 2}, None, None),
    ],
)
def test_rules_for_one_row(row: tuple[Any, Any, Any], changes: dict[str, Any], reason: str | None, detail: str | None) -> None:
    raw, text, label = (pa.array([value], pa.string()) for value in row)
    none = pa.nulls(1, pa.string())
    got = row_problems(raw, text, label, none, none, contract(**changes))
    assert [column.to_pylist() for column in got] == [[reason], [detail]]


def test_a_record_that_could_not_be_read_has_no_second_reason() -> None:
    one, none = pa.array(["x"]), pa.nulls(1, pa.string())
    reason, detail = row_problems(one, none, none, pa.array(["malformed_record"]), pa.array(["3 fields"]), contract())
    assert (reason.to_pylist(), detail.to_pylist()) == (["malformed_record"], ["3 fields"])
