from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from dagobert.differences import _first_value as first
from dagobert.differences import difference, first_difference


def written(tmp_path: Path, name: str, before: bytes, after: bytes) -> tuple[Path, Path]:
    paths = tmp_path / "recorded" / name, tmp_path / "now" / name
    for path, content in zip(paths, (before, after), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return paths


def tables(tmp_path: Path, before: dict[str, Any], after: dict[str, Any]) -> tuple[Path, Path]:
    paths = tmp_path / "recorded.parquet", tmp_path / "now.parquet"
    for path, columns in zip(paths, (before, after), strict=True):
        pq.write_table(pa.table(columns), path)
    return paths


def test_equal_files_have_no_difference(tmp_path: Path) -> None:
    assert difference(*written(tmp_path, "a.json", b"{}", b"{}")) == []


def test_json_names_the_values(tmp_path: Path) -> None:
    before, after = {"test": {"n": 10, "accuracy": 0.9}, "x": 1}, {"test": {"n": 10, "accuracy": 0.8}, "y": 2}
    found = difference(*written(tmp_path, "m.json", json.dumps(before).encode(), json.dumps(after).encode()))
    assert found == ["3 values differ: test.accuracy: 0.9 → 0.8; x: 1 → nothing; y: nothing → 2"]


def test_a_table_names_the_first_row(tmp_path: Path) -> None:
    before = {"row_id": [7, 8, 9], "text": ["a", "b", "c"]}
    found = difference(*tables(tmp_path, before, {"row_id": [7, 8, 9], "text": ["a", "B", "C"]}))
    assert found == ["the first row that differs is number 1 (row_id 8): text: 'b' → 'B'"]


def test_a_table_that_lost_rows(tmp_path: Path) -> None:
    found = difference(*tables(tmp_path, {"row_id": [1, 2, 3]}, {"row_id": [1, 2]}))
    assert found == ["3 rows recorded, 2 now", "the first 2 rows are equal"]


def test_the_same_rows_in_other_bytes(tmp_path: Path) -> None:
    recorded, now = tables(tmp_path, {"row_id": [1, 2]}, {"row_id": [1, 2]})
    pq.write_table(pa.table({"row_id": [1, 2]}), now, compression="zstd")
    assert difference(recorded, now) == ["the same rows, written otherwise"]


def test_nulls_are_values(tmp_path: Path) -> None:
    found = difference(*tables(tmp_path, {"a": ["x", None]}, {"a": ["x", ""]}))
    assert found == ["the first row that differs is number 1: a: null → ''"]


def test_tensors_are_named_with_their_distance(tmp_path: Path) -> None:
    weights = {"a": np.zeros(3, np.float32), "b": np.ones((2, 2), np.float32)}
    save_file(weights, tmp_path / "recorded.safetensors")
    weights["b"] = weights["b"] + np.float32(0.25)
    save_file(weights, tmp_path / "now.safetensors")
    found = difference(tmp_path / "recorded.safetensors", tmp_path / "now.safetensors")
    assert found == ["1 of 2 tensors differ, first b: largest difference 0.25"]


def test_tensors_of_another_shape_or_name(tmp_path: Path) -> None:
    save_file({"a": np.zeros(3, np.float32), "old": np.zeros(1, np.float32)}, tmp_path / "r.safetensors")
    save_file({"a": np.zeros(4, np.float32), "new": np.zeros(1, np.float32)}, tmp_path / "n.safetensors")
    found = difference(tmp_path / "r.safetensors", tmp_path / "n.safetensors")
    assert found[:2] == ["1 tensors are gone, first old", "1 tensors are new, first new"]
    assert "first a: F32(3,) → F32(4,)" in found[2]


def test_tables_that_were_cut_otherwise(tmp_path: Path) -> None:
    rows = {"row_id": list(range(20_000)), "score": [float("nan"), None, *(i / 7 for i in range(19_998))]}
    recorded, now = tables(tmp_path, rows, rows)
    pq.write_table(pa.table(rows), now, row_group_size=777)
    assert difference(recorded, now) == ["the same rows, written otherwise"]
    rows["score"][19_990] = 2.0
    pq.write_table(pa.table(rows), now, row_group_size=777)
    assert difference(recorded, now)[0].startswith("the first row that differs is number 19,990 (row_id 19990): score: 2855.")


def test_a_model_of_any_size_in_flat_memory(tmp_path: Path) -> None:
    recorded, now = tmp_path / "recorded.safetensors", tmp_path / "now.safetensors"
    words, head = 280_000_000, 4_000
    offsets = {"embeddings": [0, words], "head": [words, words + head]}
    header = json.dumps({n: {"dtype": "F32", "shape": [(b - a) // 4], "data_offsets": [a, b]} for n, (a, b) in offsets.items()})
    start = struct.pack("<Q", len(header)) + header.encode()
    for path in (recorded, now):
        with path.open("wb") as file:
            file.write(start)
            file.truncate(len(start) + words + head)  # a hole: zeros that need no room on the disk
    with now.open("r+b") as file:
        file.seek(len(start) + words + 400)
        file.write(struct.pack("<f", 0.5))
    tracemalloc.start()
    try:
        assert difference(recorded, now) == ["1 of 2 tensors differ, first head: largest difference 0.5"]
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_large_table_in_flat_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagobert.differences._LARGE", 0)
    recorded, now = tmp_path / "recorded.parquet", tmp_path / "now.parquet"
    schema = pa.schema({"row_id": pa.int64(), "text": pa.string()})
    for path, last in ((recorded, "x"), (now, "y")):
        with pq.ParquetWriter(path, schema, compression="zstd") as file:
            for group in range(40):
                texts = ["a" * 500] * 7999 + [last if group == 39 else "x"]
                ids = range(group * 8000, group * 8000 + 8000)
                file.write_table(pa.table({"row_id": list(ids), "text": texts}, schema))
    before = pa.total_allocated_bytes()
    seen = []
    monkeypatch.setattr(
        "dagobert.differences._first_value", lambda a, b: seen.append(pa.total_allocated_bytes()) or first(a, b)
    )
    assert difference(recorded, now) == ["the first row that differs is number 319,999 (row_id 319999): text: 'x' → 'y'"]
    assert max(seen) - before < 30e6  # all rows are 160 MB


def test_lines(tmp_path: Path) -> None:
    found = difference(*written(tmp_path, "loss.csv", b"step,loss\n1,0.5\n", b"step,loss\n1,0.6\n2,0.1\n"))
    assert found == ["2 lines recorded, 3 now; the first that differs is line 2: '1,0.5' → '1,0.6'"]


@pytest.mark.parametrize("name", ["m.json", "t.parquet", "w.safetensors", "x.bin"])
def test_a_damaged_file_is_told_in_bytes(tmp_path: Path, name: str) -> None:
    found = difference(*written(tmp_path, name, b'{"a": 1}', b'{"a"\xff 1}'))
    assert any("first byte that differs is number 4" in sentence for sentence in found)


@settings(max_examples=50, deadline=None)
@given(before=st.binary(max_size=40), after=st.binary(max_size=40))
def test_first_difference_is_the_first(before: bytes, after: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    at = first_difference(*written(tmp_path_factory.mktemp("bytes"), "x", before, after))
    if at is None:
        assert before == after
    else:
        assert before[:at] == after[:at]
        assert before[at : at + 1] != after[at : at + 1]
