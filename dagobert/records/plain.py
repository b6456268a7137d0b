"""Plain text, one text a line, without labels: what a person pipes into `dagobert predict`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dagobert.records.batches import Collector, Columns, Notes, Parsed, Reading
from dagobert.records.streams import lines


def read(path: Path, columns: Columns, reading: Reading, notes: Notes) -> Iterator[Parsed]:
    """Read a text file; an empty line is a record with an empty text, so that answers line up with questions."""
    width = len(columns.wanted)
    batch = Collector(width)
    for number, line in enumerate(lines(path, reading.encoding, notes), 1):
        text = line.rstrip("\r\n")
        batch.add(number, (text, *[None] * (width - 1)), len(text))
        if batch.full:
            yield batch.take()
    if batch.lines:
        yield batch.take()
