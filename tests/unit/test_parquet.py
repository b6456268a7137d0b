from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dagobert import parquet
from dagobert.parquet import RowWriter, read_metadata

SCHEMA = pa.schema([("row_id", pa.int64()), ("text", pa.string()), ("label", pa.string())])


def rows(lengths: list[int]) -> pa.RecordBatch:
    texts = [chr(97 + i % 26) * n for i, n in enumerate(lengths)]
    return pa.RecordBatch.from_arrays(
        [pa.array(range(len(lengths))), pa.array(texts), pa.array(["x"] * len(lengths))], schema=SCHEMA
    )


def written(path: Path, batches: list[pa.RecordBatch]) -> list[int]:
    """Write the batches; rows in each row group."""
    with RowWriter(path, SCHEMA, {"b": [1], "a": "é"}, dictionary=("label",)) as out:
        for batch in batches:
            out.write(batch)
    assert out.rows == sum(batch.num_rows for batch in batches)
    metadata = pq.read_metadata(path)
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def test_row_groups_are_cut_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_ROWS", 4)
    monkeypatch.setattr(parquet, "_BYTES", 20)
    # Each row has its text and one letter of label: 4 rows of 3+1; 9+1 and 9+1; then 30+1, too much by itself.
    lengths = [3, 3, 3, 3, 9, 9, 30, 1]
    whole = rows(lengths)
    assert written(tmp_path / "a.parquet", [whole]) == [4, 2, 1, 1]
    digests = set()
    for cuts in ([0, 8], [0, 1, 8], [0, 3, 5, 6, 8], list(range(9))):
        pieces = [whole.slice(start, end - start) for start, end in pairwise(cuts)]
        assert written(tmp_path / "b.parquet", pieces) == [4, 2, 1, 1]
        digests.add(hashlib.sha256((tmp_path / "b.parquet").read_bytes()).hexdigest())
    assert digests == {hashlib.sha256((tmp_path / "a.parquet").read_bytes()).hexdigest()}
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == whole.to_pylist()


def test_metadata_and_no_rows(tmp_path: Path) -> None:
    assert written(tmp_path / "a.parquet", []) == []
    assert read_metadata(tmp_path / "a.parquet") == {"a": "é", "b": [1]}
    assert pq.read_schema(tmp_path / "a.parquet").names == SCHEMA.names
    pq.write_table(pa.table({"x": [1]}), tmp_path / "b.parquet")
    assert read_metadata(tmp_path / "b.parquet") == {}


def test_a_disk_that_fills_up_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), RowWriter(tmp_path / "a.parquet", SCHEMA) as out:
        monkeypatch.setattr(out._writer, "write_table", full)
        out.write(rows([1, 2, 3]))
