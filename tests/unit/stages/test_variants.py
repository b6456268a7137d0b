"""Windows, pairs, added words and several labels a row, from the file to the prediction: the stages agree with `predict`."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dagobert.files import read_json
from dagobert.params import Params
from dagobert.prediction import Predictor
from dagobert.shards import open_store
from dagobert.stages import clean, encode_labels, evaluate, split, tokenize, train
from tests.unit.stages.data import params

WORDS = "the film was very good bad great awful boring happy sad plot acting this movie stent".split()
SMALL = {
    "clean__max_quarantined": 1.0,
    "labels__names": {},
    "split__train_size": 40,
    "split__validation_size": 10,
    "split__test_size": 20,
    "data__path": "rows.jsonl",
    "data__where": {},
    "tokenize__max_length": 16,
    "train__num_train_epochs": 1,
    "train__precision": "fp32",
    "train__threads": 1,
    "evaluate__baseline": False,
    "evaluate__bootstrap_resamples": 100,
}


def write_rows(n: int, label: Any) -> list[dict[str, Any]]:
    rng = random.Random(0)
    rows = [
        {
            "text": " ".join(rng.choice(WORDS) for _ in range(rng.randrange(5, 60))),
            "second": " ".join(rng.choice(WORDS) for _ in range(rng.randrange(0, 12))),
            "label": label(k),
        }
        for k in range(n)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


@pytest.fixture
def whole(tmp_path: Path, repository: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run everything from `clean` to `evaluate`; gives the rows and the parameters."""
    monkeypatch.chdir(tmp_path)

    def run(label: Any = lambda k: "ab"[k % 2], words: str = "", **changes: Any) -> tuple[list[dict[str, Any]], Params]:
        Path("data").mkdir()
        Path("data/words.txt").write_text(words)
        rows = write_rows(80, label)
        ours = params(repository, **SMALL, model__name_or_path=str(tiny_bert), **changes)
        for stage in (clean, encode_labels, tokenize, split, train, evaluate):
            stage.run(ours)
        return rows, ours

    return run


def agree(rows: list[dict[str, Any]], pair: bool = False) -> None:
    """`predict` gives the probabilities that `evaluate` wrote, row by row."""
    table = pq.read_table("reports/predictions.parquet")
    wanted = [rows[i] for i in table["row_id"].to_pylist()]
    predictor = Predictor.load(Path("models/finetuned"), device="cpu", precision="fp32")
    second = pa.array([row["second"] for row in wanted]) if pair else None
    found = predictor.probabilities(pa.array([row["text"] for row in wanted]), second)
    assert np.allclose(found, np.array(table["p"].to_pylist()), atol=1e-5)
    assert len(found) == 20


def test_windows_and_added_words(whole: Any) -> None:
    rows, _ = whole(words="stent\nawful\n", tokenize__truncation="windows", tokenize__stride=4)
    store = open_store(Path("data/tokens"))
    assert store.manifest is not None
    assert len(store) > store.manifest.n_rows > 70
    assert store.manifest.tokenizer["added"] == ["stent"]
    assert read_json(Path("models/finetuned/config.json"))["vocab_size"] == store.manifest.vocab_size
    agree(rows)


def test_pairs(whole: Any) -> None:
    rows, _ = whole(data__text_pair="second")
    assert open_store(Path("data/tokens")).has_pairs
    agree(rows, pair=True)


def test_several_labels_a_row(whole: Any) -> None:
    rows, _ = whole(label=lambda k: [["a", "b"], ["b"], ["a"], []][k % 4])
    assert read_json(Path("models/finetuned/config.json"))["problem_type"] == "multi_label_classification"
    agree(rows)


def test_the_test_side_is_never_used_for_a_choice(whole: Any, tmp_path: Path, repository: Path, tiny_bert: Path) -> None:
    """Other texts and labels on the test side: the same model, byte for byte."""
    _, ours = whole()
    model = (tmp_path / "models/finetuned/model.safetensors").read_bytes()
    sides = pq.read_table("data/splits.parquet")["split"].to_pylist()
    table = pq.read_table("data/clean.parquet")
    text = [t if s != "test" else "sad sad sad" for t, s in zip(table["text"].to_pylist(), sides, strict=True)]
    label = [x if s != "test" else "a" for x, s in zip(table["label"].to_pylist(), sides, strict=True)]
    for name, values in (("text", text), ("label", label)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(name), pa.array(values))
    pq.write_table(table, "data/clean.parquet")
    encode_labels.run(ours)
    tokenize.run(ours)
    train.run(ours)
    assert (tmp_path / "models/finetuned/model.safetensors").read_bytes() == model
