"""The texts that cleaning changes most, before and after: what a person looks at before trusting a recipe."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dagobert.cleaning import CleanRecipe, clean_texts

_WINDOW = 240  # characters shown of each text
_BEFORE = 40  # of them before the first difference


@dataclass(frozen=True)
class Change:
    """One text before and after cleaning."""

    place: str
    raw: str
    clean: str

    def __str__(self) -> str:
        """The two texts from shortly before they part."""
        pairs = enumerate(zip(self.raw, self.clean, strict=False))
        same = next((at for at, (before, after) in pairs if before != after), min(len(self.raw), len(self.clean)))
        start = max(same - _BEFORE, 0)
        return f"{self.place}\n  before: {_window(self.raw, start)}\n  after:  {_window(self.clean, start)}"


def most_changed(batches: Iterator[pa.RecordBatch], recipe: CleanRecipe, n: int) -> list[Change]:
    """The `n` texts that lose or gain most characters, the greatest change first; memory holds no more than these.

    Args:
        batches: of `records.read`.
        recipe: the cleaning.
        n: how many.
    """
    heap: list[tuple[int, int, Change]] = []
    for batch in batches:
        raw = batch.column("text")
        clean = clean_texts(raw, recipe)
        change = pc.abs(pc.subtract(pc.utf8_length(raw), pc.utf8_length(clean)))
        differs = pc.and_(pc.not_equal(raw, clean), pc.is_null(batch.column("problem")))
        change = pc.if_else(differs, change, -1)
        for at in pc.sort_indices(change, [("", "descending")])[:n].to_pylist():
            size = change[at].as_py()
            if size is None or size < 0:
                continue
            row, file, line = (batch.column(name)[at].as_py() for name in ("row_id", "source_file", "source_line"))
            item = (size, -row, Change(f"{file}:{line}", raw[at].as_py(), clean[at].as_py()))
            if len(heap) < n:
                heapq.heappush(heap, item)
            else:
                heapq.heappushpop(heap, item)
    return [change for _, _, change in sorted(heap, key=lambda item: item[:2], reverse=True)]


def _window(text: str, start: int) -> str:
    shown = repr(text[start : start + _WINDOW])
    return ("… " if start else "") + shown + (" …" if len(text) > start + _WINDOW else "")
