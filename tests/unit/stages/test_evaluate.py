from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dagobert import files
from dagobert.params import Params, load_params
from dagobert.stages import evaluate, paths
from tests.evaluation_inputs import write_inputs


@pytest.fixture
def params(repository: Path) -> Params:
    return load_params(repository / "params.yaml")


def run(root: Path, params: Params, monkeypatch: pytest.MonkeyPatch, **inputs: object) -> dict[str, str]:
    """Run the stage on made-up inputs; give the hash of each output."""
    scorer = write_inputs(root, **inputs)  # type: ignore[arg-type]
    monkeypatch.chdir(root)
    monkeypatch.setattr(evaluate, "load_scorer", lambda params: scorer)
    evaluate.run(params)
    return {path.as_posix(): files.sha256_tree(path) for path in evaluate.OUTPUTS}


def test_outputs_are_the_same_bytes_and_tell_the_same(tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path / "a", params, monkeypatch)
    assert run(tmp_path / "b", params, monkeypatch) == first
    metrics = files.read_json(paths.METRICS)
    predictions = pq.read_table(paths.PREDICTIONS).to_pydict()
    split = pq.read_table(paths.SPLITS).to_pydict()
    test_rows = [i for i, side in zip(split["row_id"], split["split"], strict=True) if side == "test"]
    assert predictions["row_id"] == test_rows
    right = sum(a == b for a, b in zip(predictions["label_id"], predictions["predicted_id"], strict=True))
    assert metrics["test"]["accuracy"] == round(right / len(test_rows), 6)
    assert metrics["test"]["n"] == metrics["baseline"]["n"] == len(test_rows)
    np.testing.assert_allclose([sum(p) for p in predictions["p"]], 1, atol=1e-6)
    assert [int(np.argmax(p)) for p in predictions["p"]] == predictions["predicted_id"]
    assert metrics["validation"] == {"step": 18, "epoch": 2, "loss": 0.4, "accuracy": 0.9, "macro_f1": 0.89}
    assert {path.name for path in paths.PLOTS.iterdir()} == {
        "classes.csv",
        "confusion.csv",
        "coverage.csv",
        "lengths.csv",
        "precision_recall.csv",
        "reliability.csv",
        "roc.csv",
    }
    with (paths.PLOTS / "confusion.csv").open(encoding="utf-8", newline="") as file:
        pairs = [(row["actual"], row["predicted"]) for row in csv.DictReader(file)]
    assert len(pairs) == len(test_rows)
    assert sum(a == b for a, b in pairs) == right
    page = paths.REPORT.read_text(encoding="utf-8")
    assert "on 60 texts it never saw".replace("on 60", "of 60") in page
    assert '<script>alert("x")</script>' not in page


def test_labels_are_matched_by_row_not_by_place(tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "a", params, monkeypatch)
    before = pq.read_table(paths.PREDICTIONS).to_pydict()
    labels = pq.read_table(paths.LABELS)
    pq.write_table(labels.take(np.arange(len(labels))[::-1]), paths.LABELS)
    evaluate.run(params)
    assert pq.read_table(paths.PREDICTIONS).to_pydict() == before


def test_without_baseline_and_temperature(tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = params.model_copy(
        update={"evaluate": params.evaluate.model_copy(update={"baseline": False, "temperature": False})}
    )
    run(tmp_path / "a", changed, monkeypatch)
    metrics = files.read_json(paths.METRICS)
    assert "baseline" not in metrics
    assert "temperature" not in metrics["test"]


def test_a_baseline_of_fewer_rows_says_so(tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"baseline_rows": 100})})
    run(tmp_path / "a", changed, monkeypatch)
    assert "on 100 of the 140 training rows" in paths.REPORT.read_text(encoding="utf-8")


def test_three_classes_have_curves_each(tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "a", params, monkeypatch, n_classes=3)
    for name in ("roc.csv", "precision_recall.csv"):
        with (paths.PLOTS / name).open(encoding="utf-8", newline="") as file:
            assert {row["class"] for row in csv.DictReader(file)} == {"negative", "positive", "so-so"}


def test_several_labels_a_row(tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "a", params, monkeypatch, n_classes=3, multi=True)
    predictions = pq.read_table(paths.PREDICTIONS).to_pydict()
    assert predictions["predicted_ids"] == [[c for c, p in enumerate(row) if p >= 0.5] for row in predictions["p"]]
    assert [] in predictions["label_ids"]
    right = np.mean([a == b for a, b in zip(predictions["label_ids"], predictions["predicted_ids"], strict=True)])
    assert files.read_json(paths.METRICS)["test"]["accuracy"] == round(float(right), 6)


def test_windows_of_a_text_are_one_row(tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "a", params, monkeypatch)
    from dataclasses import replace

    from dagobert import shards

    store = shards.open_store(paths.TOKENS)
    assert store.manifest is not None
    table = pq.read_table(paths.TOKENS / "part-00000.parquet")
    doubled = table.take(np.repeat(np.arange(len(table)), 2))
    pq.write_table(doubled, paths.TOKENS / "part-00000.parquet")
    rows, figures = evaluate.token_figures(paths.TOKENS, replace(store.manifest, stride=4))
    lengths = np.array(table["n_tokens"].to_pylist()) + np.array(table["n_truncated"].to_pylist())
    assert rows.tolist() == table["row_id"].to_pylist()
    # two windows a text that share 4 tokens, and each has its own [CLS] and [SEP]
    assert figures.lengths.tolist() == (2 * lengths - 6).tolist()


def test_the_real_scorer_fits_the_seam() -> None:
    import inspect

    from dagobert.scoring import Scorer

    assert list(inspect.signature(Scorer.logits).parameters)[:4] == ["self", "store", "index", "progress"]
    assert list(inspect.signature(Scorer.load).parameters)[:3] == ["model_dir", "device", "precision"]


def test_hashes_and_nested_facts_are_flat() -> None:
    assert evaluate.flat({"a": {"b": 1, "c": "x"}, "d": [1]}) == {"a.b": "1", "a.c": "x", "d": "[1]"}
    assert json.loads(evaluate.flat({"a": None})["a"]) is None
