"""Where a classifier is good and where it is not: the test rows by length, by source file, by any column.

A slice's accuracy comes with its interval, because small slices scatter: among twenty slices of an evenly good model one is
expected to fall outside its own 95 % interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dagobert.metrics import Interval, wilson_interval

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Slice:
    """One group of rows: its name, size and accuracy."""

    name: str
    n: int
    accuracy: float
    interval: Interval


def slice_scores(group: IntArray, names: Sequence[str], correct: BoolArray, level: float) -> list[Slice]:
    """Accuracy of each group that has rows, in the order of `names`.

    Args:
        group: index into `names` of each row, shape (N,).
        names: what the groups are called, length G.
        correct: whether a row was classified right, shape (N,).
        level: confidence level of the intervals.
    """
    count = np.bincount(group, minlength=len(names))
    right = np.bincount(group, weights=correct.astype(np.float64), minlength=len(names)).astype(np.int64)
    return [
        Slice(name, int(n), int(k) / int(n), wilson_interval(int(k), int(n), level))
        for name, n, k in zip(names, count, right, strict=True)
        if n
    ]


def length_groups(tokens: IntArray, max_length: int) -> tuple[IntArray, list[str]]:
    """Group rows by length in tokens: powers of two up to `max_length`, then what was truncated, by how much.

    Args:
        tokens: tokens before truncation, special tokens included, shape (N,).
        max_length: most tokens the model reads.
    Returns:
        (group of each row, names of the groups).
    """
    edges = [e for e in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096) if e < max_length] + [max_length, 2 * max_length]
    names = [f"up to {edges[0]} tokens", *(f"{a + 1} to {b} tokens" for a, b in pairwise(edges[:-1]))]
    names += [f"{max_length + 1} to {2 * max_length} (cut)", f"more than {2 * max_length} (cut)"]
    return np.searchsorted(edges, tokens, side="left").astype(np.int64), names


def category_groups(values: Sequence[str], most: int = 20) -> tuple[IntArray, list[str]]:
    """Group rows by a text value: the `most` frequent ones (ties by name), the others together."""
    found, index, count = np.unique(np.asarray(values, dtype=object), return_inverse=True, return_counts=True)
    order = sorted(range(len(found)), key=lambda i: (-count[i], str(found[i])))
    rank = np.empty(len(found), dtype=np.int64)
    rank[order] = np.arange(len(found))
    names = [str(found[i]) for i in order[:most]]
    if len(found) > most:
        names.append(f"{len(found) - most} others")
    return np.minimum(rank[index], most), names
