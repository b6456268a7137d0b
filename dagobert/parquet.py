"""Parquet files that are the same bytes for the same rows, however the rows arrived.

Row groups are cut by what is in them (8,192 rows or 16 MB, whichever comes first), not by the batches a reader makes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

METADATA = b"dagobert"
_ROWS = 8192
_BYTES = 16 << 20


class RowWriter:
    """Writes record batches to a Parquet file, compressing one row group while the next is made. Use as a context manager."""

    def __init__(
        self, path: Path, schema: pa.Schema, metadata: dict[str, Any] | None = None, dictionary: tuple[str, ...] = ()
    ) -> None:
        text = {METADATA: json.dumps(metadata, ensure_ascii=False, sort_keys=True)} if metadata is not None else None
        self.schema = schema.with_metadata(text)
        self._writer = pq.ParquetWriter(
            path,
            self.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=list(dictionary) or False,
            write_statistics=["row_id"] if "row_id" in schema.names else False,
        )
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._held: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        sizes = _row_bytes(batch)
        start = 0
        while start < batch.num_rows:
            take = _fits(sizes, start, _ROWS - self._rows, _BYTES - self._bytes, empty=not self._rows)
            if take:
                piece = batch.slice(start, take)
                self._held.append(piece)
                self._rows += take
                self._bytes += int(sizes[start : start + take].sum())
                start += take
            if start < batch.num_rows or self._rows >= _ROWS or self._bytes >= _BYTES:
                self._flush()

    def _flush(self) -> None:
        if self._held:
            rows = pa.Table.from_batches(self._held, self._held[0].schema).cast(self.schema)
            self._wait()
            self._writing = self._thread.submit(self._writer.write_table, rows, row_group_size=_ROWS)
            self.rows += self._rows
            self._held, self._rows, self._bytes = [], 0, 0

    def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def __enter__(self) -> RowWriter:
        """Start writing."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Write what is held back, and close the file."""
        try:
            if kind is None:
                self._flush()
                self._wait()
        finally:
            self._thread.shutdown()
            self._writer.close()


def _row_bytes(batch: pa.RecordBatch) -> Any:
    import numpy as np
    import pyarrow.compute as pc

    total = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            total += pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
    return total


def _fits(sizes: Any, start: int, rows: int, room: int, *, empty: bool) -> int:
    """How many rows from `start` on go into the row group: at least one if it is empty."""
    ends = sizes[start : start + rows].cumsum()
    fitting = int(ends.searchsorted(room, side="right"))
    return max(fitting, 1) if empty else fitting


def read_metadata(path: Path) -> dict[str, Any]:
    """What `RowWriter` was given as metadata."""
    stored = pq.read_schema(path).metadata or {}
    return dict(json.loads(stored.get(METADATA, b"{}")))


def stream(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of at most `rows` rows of those of `columns` that the file has, with flat memory.

    pyarrow's `pre_buffer`, on by default, keeps every column chunk it has read until the file is closed: 560 MB of a file of
    a million reviews.
    """
    with pq.ParquetFile(path, pre_buffer=False) as source:
        present = [name for name in columns if name in source.schema_arrow.names]
        yield from source.iter_batches(batch_size=rows, columns=present)
