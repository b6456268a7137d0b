from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dagobert import curation
from dagobert.cleaning import CleanRecipe
from dagobert.curation import Outcome, Selection, curate
from dagobert.parquet import read_metadata
from dagobert.records import Columns, Reading, find, read
from tests.unit.test_quality import contract

RECIPE = CleanRecipe(("markup", "entities", "nfc", "control", "zero_width", "white_space"), " ", "http", "@user")


def run(path: Path, out: Path, selection: Selection | None = None, **rules: Any) -> tuple[Outcome, list[Any], list[Any]]:
    selection = selection or Selection({})
    out.mkdir(exist_ok=True)
    batches = read(find(str(path)), Columns("text", "label", selection.columns), Reading())
    clean, quarantine, draft = out / "clean.parquet", out / "quarantine.parquet", out / "draft"
    outcome = curate(batches, selection, RECIPE, contract(**rules), clean=clean, quarantine=quarantine, draft=draft)
    assert not draft.exists()
    return outcome, pq.read_table(clean).to_pylist(), pq.read_table(quarantine).to_pylist()


def test_every_record_ends_in_one_place(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        'text,label,lang\nGood<br />film,1,en\n"broken,1,en\ngood film,1,en\nGood film,1,en\n<br>,0,en\nschlecht,0,de\n'
        "bad,,en\nbad, 0 ,en\nbad,1,en\nfine,0,en\n"
    )
    outcome, clean, quarantine = run(tmp_path / "a.csv", tmp_path / "out", Selection({"lang": "en"}, extra=("lang",)))
    assert (outcome.rows_read, outcome.rows_not_selected, outcome.rows_out, outcome.rows_quarantined) == (10, 1, 2, 7)
    assert clean == [
        {"row_id": 0, "text": "Good film", "label": "1", "source_file": "a.csv", "source_line": 2, "lang": "en"},
        {"row_id": 9, "text": "fine", "label": "0", "source_file": "a.csv", "source_line": 11, "lang": "en"},
    ]
    assert [(row["row_id"], row["source_line"], row["reason"], row["text"], row["detail"]) for row in quarantine] == [
        (1, 3, "malformed_record", '"broken,1,en', "a quote is opened and never closed"),
        (2, 4, "normalized_duplicate", "good film", "repeats a.csv:2"),
        (3, 5, "duplicate", "Good film", "repeats a.csv:2"),
        (4, 6, "empty_text", "<br>", "nothing is left after cleaning"),
        (6, 8, "missing_label", "bad", "there is no label"),
        (7, 9, "conflicting_labels", "bad", "another label at a.csv:10"),
        (8, 10, "conflicting_labels", "bad", "another label at a.csv:9"),
    ]
    assert outcome.labels == {"1": 1, "0": 1}
    assert outcome.examples["empty_text"] == [
        {"file": "a.csv", "line": 6, "label": "0", "text": "<br>", "detail": "nothing is left after cleaning"}
    ]
    assert read_metadata(tmp_path / "out/clean.parquet") == {"clean": RECIPE.to_json()}


def test_pairs_and_lists_of_labels(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a", "label": ["x", "y"], "second": "p &amp; q"}\n'
        '{"text": "a", "label": ["y", "x"], "second": "other"}\n'  # the pair counts, not the first text
        '{"text": "A", "label": ["y", "x"], "second": "P & q"}\n'  # the order of labels does not
        '{"text": "b", "label": [], "second": "s"}\n'
        '{"text": "c", "label": "x", "second": null}\n'
    )
    outcome, clean, quarantine = run(tmp_path / "a.jsonl", tmp_path / "out", Selection({}, text_pair="second"))
    assert [(row["text"], row["text_pair"], row["label"]) for row in clean] == [
        ("a", "p & q", ["x", "y"]),
        ("a", "other", ["y", "x"]),
        ("b", "s", []),
    ]
    assert [(row["reason"], row["label"]) for row in quarantine] == [("normalized_duplicate", "y; x"), ("missing_text", "x")]
    assert outcome.labels == {"x": 2, "y": 2}


def test_the_bytes_do_not_depend_on_batches_or_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(f"text {i % 700}<br>,{i % 3}\n" for i in range(3000))
    (tmp_path / "a.csv").write_text("text,label\n" + lines)
    seen = set()
    for threads, batch_rows in ((1, 8192), (4, 100), (2, 7)):
        monkeypatch.setattr(curation, "_THREADS", threads)
        monkeypatch.setattr("dagobert.records.batches.BATCH_ROWS", batch_rows)
        run(tmp_path / "a.csv", tmp_path / "out", conflicting_labels="keep_first")
        seen.add(tuple((tmp_path / "out" / name).read_bytes() for name in ("clean.parquet", "quarantine.parquet")))
    assert len(seen) == 1


def test_examples_are_few_and_short(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + f"{'x' * 500},1\n" * 100)
    outcome, clean, quarantine = run(tmp_path / "a.csv", tmp_path / "out")
    assert (len(clean), len(quarantine)) == (1, 99)
    assert len(outcome.examples["duplicate"]) == 20
    assert len(outcome.examples["duplicate"][0]["text"]) == 201


def test_no_rows_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n")
    outcome, clean, quarantine = run(tmp_path / "a.csv", tmp_path / "out")
    assert (outcome.rows_read, clean, quarantine) == (0, [], [])


@pytest.mark.parametrize(("policy", "left"), [("keep_first", [0, 2, 4]), ("quarantine", [2, 4]), ("keep", [0, 1, 2, 3, 4])])
def test_near_duplicates(tmp_path: Path, policy: str, left: list[int]) -> None:
    long = " ".join(f"word{i}" for i in range(60))
    rows = [(long, 1), (f"{long} more", 1), (f"{long} again", 0), (f"{long} once again", 1), ("short", 1)]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    _, clean, quarantine = run(tmp_path / "a.csv", tmp_path / "out", near_duplicates=policy)
    assert [row["row_id"] for row in clean] == left
    assert {row["reason"] for row in quarantine} <= {"near_duplicate"}
    if policy == "keep_first":
        assert [row["detail"] for row in quarantine] == ["almost repeats a.csv:2"] * 2
