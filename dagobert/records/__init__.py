"""Data files as they are → Arrow batches in which every record knows its ordinal, its file and its line.

Nothing is dropped and nothing is altered here: a record that cannot be read comes out as a row with a `problem`, and the record
after it is read correctly. Python's own csv and json do the parsing: they know the line of each record, they survive what makes
Arrow give up on a whole block, and on 34 MB of reviews csv took 0.16 s where Arrow's reader took 0.12 s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from dagobert.records import columnar, delimited, folders, jsonlines, plain
from dagobert.records.batches import Columns, Notes, Parsed, Reading, coalesce, schema, to_batch
from dagobert.records.layout import Layout, find

__all__ = ["Columns", "Layout", "Notes", "Reading", "find", "read", "schema"]

_READERS: dict[str, Callable[[Path, Columns, Reading, Notes], Iterator[Parsed]]] = {
    "csv": delimited.read,
    "tsv": delimited.read,
    "jsonl": jsonlines.read,
    "parquet": columnar.read,
    "folders": folders.read,
    "lines": plain.read,
}


def read(layout: Layout, columns: Columns, reading: Reading, notes: Notes | None = None) -> Iterator[pa.RecordBatch]:
    """Read every record of every file of `layout`, in order.

    Args:
        layout: the files, from `find`.
        columns: which columns to read.
        reading: how the files are written (format, encoding, delimiter …).
        notes: filled with what was found out on the way: encodings, records a file.
    Yields:
        Batches of `schema(columns)`: row_id counts all records from 0; `problem` is null for a record that could be read, else
        a reason such as `malformed_record`, with `detail` in words and the raw record, as far as known, in `text`.
    Raises:
        RecordError: a file that cannot be read at all, or lacks a column.
    """
    yield from coalesce(_each_file(layout, columns, reading, notes if notes is not None else Notes()))


def _each_file(layout: Layout, columns: Columns, reading: Reading, notes: Notes) -> Iterator[pa.RecordBatch]:
    row_id = 0
    for file, kind in zip(layout.files, layout.formats, strict=True):
        name = layout.name(file)
        folder = name.partition("/")[0] if kind == "folders" else None
        notes.begin(name, kind)
        for parsed in _READERS[kind](file, columns, reading, notes):
            batch = to_batch(parsed, columns, row_id, name, folder)
            row_id += batch.num_rows
            notes.count(batch.num_rows)
            yield batch
