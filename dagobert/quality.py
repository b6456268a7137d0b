"""The data contract: what makes a row unusable, and what is done about it.

A policy is `quarantine` (set the row aside) or `fail` (stop the run), and for rows that repeat each other also `keep_first` and
`keep`. Row by row rules need one row; rules about repeated text need all keys (`textkeys`), 8 bytes a row each, and no text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dagobert.records.batches import ITEM
from dagobert.textkeys import Keys

IntArray = npt.NDArray[np.int64]

# Reasons in the order in which they are looked for: a row has the first that fits.
UNREADABLE = ("malformed_record", "undecodable_text")
ROW_REASONS = (*UNREADABLE, "missing_text", "empty_text", "missing_label", "unknown_label", "too_short", "too_long")
GROUP_REASONS = ("conflicting_labels", "duplicate", "normalized_duplicate", "near_duplicate")


@dataclass(frozen=True)
class Contract:
    """Policies and limits; the names are those of the parameters under `clean`."""

    unreadable: str
    empty: str
    missing_label: str
    unknown_label: str
    wrong_length: str
    conflicting_labels: str
    duplicates: str
    normalized_duplicates: str
    near_duplicates: str
    near_duplicate_threshold: float
    min_chars: int
    max_chars: int | None
    classes: tuple[str, ...] | None
    needs_label: bool = True

    def policy(self, reason: str) -> str:
        """What is done about a reason."""
        if reason in UNREADABLE:
            return self.unreadable
        return {
            "missing_text": self.empty,
            "empty_text": self.empty,
            "missing_label": self.missing_label,
            "unknown_label": self.unknown_label,
            "too_short": self.wrong_length,
            "too_long": self.wrong_length,
            "conflicting_labels": self.conflicting_labels,
            "duplicate": self.duplicates,
            "normalized_duplicate": self.normalized_duplicates,
            "near_duplicate": self.near_duplicates,
        }[reason]

    @property
    def normalizes(self) -> bool:
        """Whether texts that differ in case, punctuation and white space only count as the same."""
        return self.normalized_duplicates != "keep"


def row_problems(
    raw: pa.Array, text: pa.Array, label: pa.Array, problem: pa.Array, detail: pa.Array, contract: Contract
) -> tuple[pa.Array, pa.Array]:
    """Reason and detail a row, null where the row is good.

    Args:
        raw: text as read, shape (N,).
        text: text after cleaning, shape (N,).
        label: shape (N,).
        problem: what the reader found, shape (N,).
        detail: the same in words, shape (N,).
        contract: the rules.
    """
    reason = problem
    length = pc.fill_null(pc.utf8_length(text), 0)
    reason, detail = _mark(reason, detail, pc.is_null(raw), "missing_text", "there is no text")
    reason, detail = _mark(reason, detail, pc.equal(length, 0), "empty_text", "nothing is left after cleaning")
    if contract.needs_label:
        no_label = pc.or_kleene(pc.is_null(label), pc.equal(pc.fill_null(label, ""), ""))
        reason, detail = _mark(reason, detail, no_label, "missing_label", "there is no label")
    if contract.classes is not None and contract.needs_label:
        unknown = pc.invert(_known(label, contract.classes))
        words = pc.binary_join_element_wise("the label is ", pc.replace_substring(pc.fill_null(label, ""), ITEM, " "), "")
        reason, detail = _mark(reason, detail, unknown, "unknown_label", words)
    counts = pc.binary_join_element_wise(length.cast(pa.string()), " characters", "")
    reason, detail = _mark(reason, detail, pc.less(length, contract.min_chars), "too_short", counts)
    if contract.max_chars is not None:
        reason, detail = _mark(reason, detail, pc.greater(length, contract.max_chars), "too_long", counts)
    return reason, detail


def pair_problems(pair: pa.Array, reason: pa.Array, detail: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The same for the second text of a pair, cleaned, shape (N,)."""
    reason, detail = _mark(reason, detail, pc.is_null(pair), "missing_text", "there is no second text")
    empty = pc.equal(pc.fill_null(pc.utf8_length(pair), 0), 0)
    return _mark(reason, detail, empty, "empty_text", "nothing is left of the second text after cleaning")


def _known(labels: pa.Array, classes: tuple[str, ...]) -> pa.Array:
    coded = labels.dictionary_encode()
    known = [all(item in classes for item in value.lstrip(ITEM).split(ITEM) if item) for value in coded.dictionary.to_pylist()]
    return pc.fill_null(pa.array(known, pa.bool_()).take(coded.indices), True)


def _mark(reason: pa.Array, detail: pa.Array, where: pa.Array, name: str, words: str | pa.Array) -> tuple[pa.Array, pa.Array]:
    where = pc.and_(where, pc.is_null(reason))
    if not pc.any(where).as_py():
        return reason, detail
    return pc.if_else(where, name, reason), pc.if_else(where, words, detail)


@dataclass(frozen=True)
class Repeats:
    """Rows that are set aside because of other rows. Both arrays have shape (N,)."""

    reason: npt.NDArray[np.int8]  # index into GROUP_REASONS, -1: the row stays
    first: IntArray  # position of the row it repeats or contradicts, -1: none


def repeats(
    exact: Keys, normalized: Keys | None, labels: IntArray, usable: npt.NDArray[np.bool_], contract: Contract
) -> Repeats:
    """Find rows that repeat or contradict each other, among the usable ones.

    Contradictions come first: of one text under two labels nobody knows which is right, so by default all its rows go. Then
    exact duplicates, then normalised ones among those left.

    Args:
        exact: `exact_keys`, shape (N,).
        normalized: `normalized_keys`, shape (N,), where the contract asks for them.
        labels: a number a label, shape (N,).
        usable: rows that no other rule has set aside, shape (N,).
        contract: the rules.
    """
    found = Repeats(np.full(len(exact), -1, np.int8), np.full(len(exact), -1, np.int64))
    alive = usable.copy()
    widest = exact if normalized is None else normalized
    if contract.conflicting_labels != "keep":
        _conflicts(found, alive, widest, labels, contract)
    # With the label as part of the key: where conflicts are kept, each label keeps its row.
    _duplicates(found, alive, _with_label(exact, labels), "duplicate", contract)
    if normalized is not None:
        _duplicates(found, alive, _with_label(normalized, labels), "normalized_duplicate", contract)
    return found


def _groups(keys: Keys, alive: npt.NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """Positions of the rows that share their key with another, by key and then position, and where each group starts."""
    at = np.flatnonzero(alive)
    order = at[np.argsort(keys[at], kind="stable")]
    ordered = keys[order]
    same_as_before = np.concatenate([[False], ordered[1:] == ordered[:-1]]) if len(order) else np.zeros(0, bool)
    shared = same_as_before | np.append(same_as_before[1:], False) if len(order) else same_as_before
    starts = np.flatnonzero(~same_as_before[shared])
    return order[shared], starts


def _conflicts(found: Repeats, alive: npt.NDArray[np.bool_], keys: Keys, labels: IntArray, contract: Contract) -> None:
    members, starts = _groups(keys, alive)
    if not len(members):
        return
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(members))))
    of = labels[members]
    mixed = np.maximum.reduceat(of, starts) != np.minimum.reduceat(of, starts)
    first = members[starts][group]
    hit = mixed[group]
    if contract.conflicting_labels == "keep_first":
        hit &= of != labels[first]
    # What a row contradicts: the group's first row, or, where the two agree, the group's first row with another label.
    other = np.full(len(starts), -1, np.int64)
    differs = np.flatnonzero(of != labels[first])[::-1]
    other[group[differs]] = members[differs]
    against = np.where(of == labels[first], other[group], first)
    _set(found, alive, members[hit], against[hit], "conflicting_labels")


def _duplicates(found: Repeats, alive: npt.NDArray[np.bool_], keys: Keys, reason: str, contract: Contract) -> None:
    policy = contract.policy(reason)
    if policy == "keep":
        return
    members, starts = _groups(keys, alive)
    if not len(members):
        return
    sizes = np.diff(np.append(starts, len(members)))
    first = np.repeat(members[starts], sizes)
    later = members != first
    hit = later if policy != "quarantine" else np.ones(len(members), bool)
    second = np.repeat(members[starts + 1], sizes)
    _set(found, alive, members[hit], np.where(later, first, second)[hit], reason)


def _set(found: Repeats, alive: npt.NDArray[np.bool_], rows: IntArray, first: IntArray, reason: str) -> None:
    found.reason[rows] = GROUP_REASONS.index(reason)
    found.first[rows] = first
    alive[rows] = False


def _with_label(keys: Keys, labels: IntArray) -> Keys:
    # An odd multiplier spreads the small label numbers over all 64 bits.
    return keys ^ (labels.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
