from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dagobert import prediction
from dagobert.cleaning import CleanRecipe
from dagobert.errors import ModelError, RecordError, StorageError
from dagobert.labels import MULTI, SINGLE, LabelMap
from dagobert.prediction import Predictor, guarded, predict_file
from dagobert.records import Columns, Reading
from dagobert.shards import TokenStore
from dagobert.tokens import Tokenization

RECIPE = CleanRecipe(("markup", "entities", "nfc", "control", "zero_width", "white_space"), " ", "[URL]", "[USER]")


class LengthScorer:
    """Logits (0, tokens - 4) a sequence: a text of more than two words is positive. Stands in for a model in these tests."""

    def logits(self, store: TokenStore, index: Any = None) -> Any:
        return np.stack([np.zeros(len(store)), store.lengths - 4.0], 1).astype(np.float32)


@pytest.fixture
def predictor(tiny_bert: Path) -> Callable[..., Predictor]:
    def make(truncation: Any = "head", stride: int | None = None, max_length: int = 32, problem: str = SINGLE) -> Predictor:
        labels = LabelMap(problem, ("0", "1"), ("negative", "positive"))
        tokenization = Tokenization(tiny_bert, max_length, truncation, stride)
        return Predictor(labels, RECIPE, tokenization, LengthScorer())  # type: ignore[arg-type]

    return make


def score(predictor: Predictor, source: Path, output: Path, *keep: str, kind: Any = "csv", **reading: str) -> tuple[int, int]:
    return predict_file(predictor, str(source), str(output), Columns("text", None, keep), Reading(**reading), kind)


def test_every_row_in_order_with_label_score_and_probabilities(predictor: Callable[..., Predictor], tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,text\n7,good\n8,this film is very good\n9,\n10,<br /> \n11,good film\n", encoding="utf-8")
    assert score(predictor(), source, tmp_path / "out.csv", "id") == (5, 2)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["row_id", "label", "score", "p_negative", "p_positive", "id"]
    assert [row["row_id"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["id"] for row in rows] == ["7", "8", "9", "10", "11"]
    # "good": 3 tokens, logits (0, -1); "good film": 4 tokens, logits (0, 0), a draw that the first class wins
    assert [row["label"] for row in rows] == ["negative", "positive", "", "", "negative"]
    assert float(rows[0]["p_positive"]) == pytest.approx(1 / (1 + np.e), abs=1e-6)
    assert rows[2]["score"] == rows[2]["p_negative"] == rows[3]["score"] == ""


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_other_formats_say_the_same(predictor: Callable[..., Predictor], tmp_path: Path, kind: str) -> None:
    source, output = tmp_path / "in.csv", tmp_path / f"out.{kind}"
    source.write_text("text\ngood\n<br />\nthis film is very good\n", encoding="utf-8")
    score(predictor(), source, output, kind=kind)
    if kind == "jsonl":
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    else:
        rows = pq.read_table(output).to_pylist()
    assert [row["label"] for row in rows] == ["negative", None, "positive"]
    assert rows[1]["score"] is None
    assert rows[1]["p_negative"] is None
    assert rows[0]["p_negative"] + rows[0]["p_positive"] == pytest.approx(1, abs=1e-6)


def test_a_record_that_cannot_be_read_keeps_its_place(predictor: Callable[..., Predictor], tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "good"}\n{"text": \n{"text": "good film of love and fun"}\n', encoding="utf-8")
    assert score(predictor(), source, tmp_path / "out.csv") == (3, 1)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["label"] for row in rows] == ["negative", "", "positive"]


def test_windows_do_not_show(predictor: Callable[..., Predictor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"{'good ' * (i % 7 + 1)}\n" for i in range(100)), encoding="utf-8")
    score(predictor(), source, tmp_path / "one.csv")
    monkeypatch.setattr(prediction, "WINDOW", 9)
    monkeypatch.setattr("dagobert.records.batches.BATCH_ROWS", 4)
    score(predictor(), source, tmp_path / "many.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "many.csv").read_bytes()


def test_a_long_document_is_the_mean_of_its_windows(predictor: Callable[..., Predictor]) -> None:
    # windows of 6 tokens share none: 10 words are windows of 4, 4 and 2 words, of 6, 6 and 4 tokens, logits 2, 2, 0: mean 4/3
    found = predictor("windows", 0, 6).probabilities(pa.array(["good " * 10, "good"]))
    assert found[0, 1] == pytest.approx(1 / (1 + np.exp(-4 / 3)), abs=1e-6)
    assert found[1, 1] == pytest.approx(1 / (1 + np.e), abs=1e-6)


def test_several_labels_a_row(predictor: Callable[..., Predictor]) -> None:
    several = predictor(problem=MULTI)
    labels, scores = several.answers(several.probabilities(pa.array(["good", "good good good good", None])))
    # sigmoids: class 0 always 0.5, class 1 above it from four tokens on
    assert labels == [["negative"], ["negative", "positive"], None]
    assert scores[2] is None


@pytest.mark.parametrize(("cell", "expected"), [("=1+1", "'=1+1"), ("@x", "'@x"), ("good", "good"), (None, None), (3, 3)])
def test_cells_that_look_like_formulas(cell: Any, expected: Any) -> None:
    assert guarded(cell) == expected


def test_a_full_disk_leaves_what_stood_there(
    predictor: Callable[..., Predictor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\ngood\n", encoding="utf-8")
    output.write_text("precious", encoding="utf-8")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        score(predictor(), source, output)
    assert output.read_text(encoding="utf-8") == "precious"


def test_mistakes_are_told(predictor: Callable[..., Predictor], tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text,label\ngood,1\n", encoding="utf-8")
    with pytest.raises(RecordError, match="the output has a column of this name already"):
        score(predictor(), source, tmp_path / "out.csv", "label")
    with pytest.raises(RecordError, match="parquet cannot be written to standard output"):
        predict_file(predictor(), str(source), "-", Columns("text", None), Reading(), "parquet")
    with pytest.raises(RecordError, match="what format"):
        prediction.output_format("answers.txt", None)
    with pytest.raises(ModelError, match="Train a model first"):
        Predictor.load(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"holds no dagobert\.json"):
        Predictor.load(tmp_path)
    (tmp_path / "dagobert.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="is damaged"):
        Predictor.load(tmp_path)


def test_standard_input_is_spooled(tmp_path: Path) -> None:
    path = prediction.standard_input(io.BytesIO(b"good\nbad\n"), tmp_path)
    assert path.read_bytes() == b"good\nbad\n"
