"""Near duplicates: texts that share most of their word triples, found by MinHash with the library datasketch.

The only rule of the data contract that needs memory a row (about 1 KB) and most of a millisecond: it is off by default.
"""

from __future__ import annotations

import re
from typing import Any
from zlib import crc32

from dagobert.errors import DataContractError

_PERMUTATIONS = 128  # the estimate of the share in common has a standard deviation of at most 0.044
_WORDS = 3
_AT_ONCE = 8192
_WORD = re.compile(r"\w+")


def shingles(text: str) -> list[bytes]:
    """Distinct runs of three words, in lower case and order; of a shorter text all its words as one."""
    words = _WORD.findall(text.lower())
    runs = [" ".join(words[i : i + _WORDS]) for i in range(max(len(words) - _WORDS + 1, 1))]
    return [run.encode() for run in dict.fromkeys(runs) if run]


def _blank() -> Any:
    """An empty MinHash, and what to call a missing library."""
    try:
        from datasketch import MinHash
    except ImportError:
        raise DataContractError(
            "near duplicates are found with the package datasketch, which is not installed. pip install datasketch, or set "
            "clean.near_duplicates to keep and split.near_duplicates to null."
        ) from None
    return MinHash(num_perm=_PERMUTATIONS, hashfunc=crc32)


def _hashed(blank: Any, parts: list[bytes]) -> Any:
    """The MinHash of a text's runs; in pieces, because datasketch makes a table of runs times permutations (1 GB for 10 MB)."""
    hashed = blank.copy()
    for start in range(0, len(parts), _AT_ONCE):
        hashed.update_batch(parts[start : start + _AT_ONCE])
    return hashed


class AcrossSides:
    """Finds texts of one side that are nearly the same as one of another side.

    Show it the small sides first, with `remember`, then the large one without: memory holds 1 KB for each remembered text.
    """

    def __init__(self, threshold: float) -> None:
        self._blank = _blank()
        from datasketch import MinHashLSH

        self._threshold = threshold
        self._index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
        self._seen: dict[int, tuple[int, Any]] = {}

    def find(self, row: int, text: str, side: int, *, remember: bool) -> list[tuple[int, float]]:
        """Rows of other sides that are nearly this text, each with the share of word triples in common (estimated)."""
        parts = shingles(text)
        if not parts:
            return []
        hashed = _hashed(self._blank, parts)
        found = []
        for other in sorted(self._index.query(hashed)):
            its_side, theirs = self._seen[other]
            share = hashed.jaccard(theirs) if its_side != side else 0.0
            if share >= self._threshold:
                found.append((int(other), float(share)))
        if remember:
            self._index.insert(row, hashed, check_duplication=False)
            self._seen[row] = (side, hashed)
        return found


class NearDuplicates:
    """Remembers the texts it was shown, by group, and finds an earlier one that is nearly the same."""

    def __init__(self, threshold: float) -> None:
        self._blank = _blank()
        from datasketch import MinHashLSH

        self._threshold = threshold
        self._index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
        self._seen: dict[int, object] = {}
        self._groups: dict[int, int] = {}

    def find(self, row: int, text: str, group: int) -> int | None:
        """The earliest row of the same group that is nearly this one; if there is none, remember this one.

        Args:
            row: its number, larger than those before.
            text: cleaned.
            group: only rows of one group are compared (its label).
        """
        parts = shingles(text)
        if not parts:
            return None
        hashed = _hashed(self._blank, parts)
        for other in sorted(self._index.query(hashed)):
            if self._groups[other] == group and hashed.jaccard(self._seen[other]) >= self._threshold:
                return int(other)
        self._index.insert(row, hashed, check_duplication=False)
        self._seen[row], self._groups[row] = hashed, group
        return None
