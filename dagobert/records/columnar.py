"""Parquet: batches of the columns asked for. A record's line is its row number, from 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dagobert.errors import RecordError
from dagobert.records.batches import ITEM, UNDECODABLE, Columns, Notes, Parsed, Reading, undecodable

_ROWS = 4096


def read(path: Path, columns: Columns, reading: Reading, notes: Notes) -> Iterator[Parsed]:
    """Read a Parquet file.

    Raises:
        RecordError: not a Parquet file, a missing column, or a column that is neither text nor number.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            columns.require(file.schema_arrow.names, str(path))
            line, size = 1, path.stat().st_size
            total = max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=_ROWS, columns=list(columns.wanted)):
                problems: dict[int, tuple[str, str]] = {}
                values = [_strings(batch.column(name), name, path, problems, columns.kind(name)) for name in columns.wanted]
                numbers = np.arange(line, line + batch.num_rows)
                line += batch.num_rows
                notes.used(size * batch.num_rows // total)
                yield Parsed(numbers, values, problems)
    except (pa.ArrowException, OSError) as error:
        raise RecordError(
            f"{path}: cannot be read as Parquet ({error}). Is it damaged, or in another format? See data.format."
        ) from error


def _strings(column: pa.Array, name: str, path: Path, problems: dict[int, tuple[str, str]], use: str) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _strings(column.dictionary_decode(), name, path, problems, use)
    if use == "label" and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        items = _strings(column.flatten(), name, path, problems, "item")
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        joined = pc.binary_join(pa.ListArray.from_arrays(offsets, items), ITEM)
        return pc.if_else(pc.is_valid(column), pc.binary_join_element_wise(ITEM, joined, ""), pa.scalar(None, pa.string()))
    if pa.types.is_floating(kind):
        whole = pc.all(pc.equal(pc.floor(column), column)).as_py()
        return (column.cast(pa.int64()) if whole in (True, None) else column).cast(pa.string())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind) or pa.types.is_temporal(kind):
        return column.cast(pa.string())
    if not (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    ):
        raise RecordError(f"{path}: the column {name!r} holds {kind}, not text or numbers.")
    try:
        text = column.cast(pa.binary()).cast(pa.string())  # this cast checks that the bytes are UTF-8
    except pa.ArrowInvalid:
        return _checked(column.cast(pa.binary()), problems)
    return text


def _checked(column: pa.Array, problems: dict[int, tuple[str, str]]) -> pa.Array:
    good: list[str | None] = []
    for at, value in enumerate(column.to_pylist()):
        text = None if value is None else value.decode("utf-8", "surrogateescape")
        words = undecodable(text)
        if words is not None:
            problems.setdefault(at, (UNDECODABLE, words))
            text = value.decode("utf-8", "backslashreplace")
        good.append(text)
    return pa.array(good, pa.string())
