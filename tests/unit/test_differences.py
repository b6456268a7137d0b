from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

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
