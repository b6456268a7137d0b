"""Class folders: a text file a record, its label the name of the directory it lies in (the first one below data.path)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dagobert.errors import RecordError
from dagobert.records.batches import MALFORMED, MAX_RECORD, Columns, Notes, Parsed, Reading
from dagobert.records.streams import decoded


def read(path: Path, columns: Columns, reading: Reading, notes: Notes) -> Iterator[Parsed]:
    """Read a whole text file as one record.

    Raises:
        RecordError: columns are asked for that class folders do not have.
    """
    if columns.extra:
        raise RecordError(
            f"{path}: class folders have no column {columns.extra[0]!r}, only a text and a label. "
            f"Set data.where: {{}} in params.yaml."
        )
    pieces, length = [], 0
    for piece in decoded(path, reading.encoding, notes):
        pieces.append(piece)
        length += len(piece)
        if length > MAX_RECORD:
            yield Parsed(
                [1], [[None] for _ in columns.wanted], {0: (MALFORMED, f"more than {MAX_RECORD >> 20} million characters")}
            )
            return
    yield Parsed([1], [["".join(pieces)], *([None] for _ in columns.wanted[1:])], {})
