from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dagobert.errors import LabelError
from dagobert.files import read_json
from dagobert.stages import encode_labels
from dagobert.stages.encode_labels import encode_file
from tests.unit.stages.data import params, write_clean


def encode(
    tmp_path: Path, labels: list[Any], declared: Any = None, names: Any = None, separator: Any = None
) -> tuple[Any, Any]:
    clean = write_clean(tmp_path / "clean.parquet", ["x"] * len(labels), labels, group_size=3)
    encode_file(clean, tmp_path / "labels.parquet", tmp_path / "labels.json", declared, names or {}, separator)
    return pq.read_table(tmp_path / "labels.parquet"), read_json(tmp_path / "labels.json")


def test_labels_become_ids(tmp_path: Path) -> None:
    table, found = encode(tmp_path, ["1", "0", "1", "1", "0"], names={"1": "positive", "0": "negative"})
    assert table.to_pydict() == {"row_id": [0, 2, 4, 6, 8], "label_id": [1, 0, 1, 1, 0]}
    assert found == {
        "problem_type": "single_label_classification",
        "classes": ["0", "1"],
        "names": ["negative", "positive"],
        "counts": [2, 3],
    }


def test_several_labels_a_row_by_separator_or_list(tmp_path: Path) -> None:
    expected = [[0, 2], [1], [], [2]]
    table, found = encode(tmp_path, ["a;c", "b", "", "c"], separator=";")
    assert table["label_ids"].to_pylist() == expected
    assert found["problem_type"] == "multi_label_classification"
    assert found["counts"] == [1, 1, 2]
    table, again = encode(tmp_path, [["a", "c"], ["b"], [], ["c"]])
    assert table["label_ids"].to_pylist() == expected
    assert again == found


def test_a_label_outside_the_declared_classes_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"reviews\.csv:6: label 'neutral' is not one of 'good', 'bad'\. Add it under labels"):
        encode(tmp_path, ["good", "bad", "good", "bad", "neutral"], declared=("good", "bad"))
    with pytest.raises(LabelError, match=r"reviews\.csv:3: label 'x'"):
        encode(tmp_path, ["good", "bad;x", "good"], declared=("good", "bad"), separator=";")
    assert not (tmp_path / "labels.parquet").exists()


def test_the_stage_reads_and_writes_its_own_paths(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clean(Path("data/clean.parquet"), ["x", "y"], ["0", "1"])
    ours = params(repository)
    assert encode_labels.inputs(ours) == [Path("data/clean.parquet")]
    encode_labels.run(ours)
    assert all(path.exists() for path in encode_labels.OUTPUTS)


def test_names_for_other_data_are_left_aside_with_a_warning(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clean(Path("data/clean.parquet"), ["x", "y"], ["tech", "sport"])
    said: list[str] = []
    monkeypatch.setattr("dagobert.events.warn", said.append)
    encode_labels.run(params(repository, labels__names={"0": "negative"}))
    assert said == ["labels.names names '0', which the data does not have; classes: 'sport', 'tech'"]
