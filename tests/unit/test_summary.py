from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dagobert import summary
from dagobert.cli import main
from dagobert.errors import RecordError

DATA = {
    "rows_read": 33_530,
    "rows_not_selected": 8_530,
    "rows_out": 24_901,
    "rows_quarantined": 99,
    "quarantined_by_reason": {"duplicate": 97, "empty": 1, "missing_label": 1, "unreadable": 0},
}
SPLIT = {"sizes": {"train": 2000, "validation": 500, "test": 1000, "unused": 0}}
SCORES = {"n": 1000, "accuracy": 0.892, "accuracy_low": 0.8713, "accuracy_high": 0.9098}
METRICS: dict[str, Any] = {
    "test": SCORES,
    "baseline": SCORES | {"accuracy": 0.866},
    "against_baseline": {
        "accuracy_difference": 0.026,
        "accuracy_difference_low": 0.005,
        "accuracy_difference_high": 0.047,
        "mcnemar_mid_p": 0.0149,
    },
}
STAGES = ["fetch", "clean", "encode-labels", "tokenize", "split", "train", "evaluate"]


def table(**changes: Any) -> str:
    values = {"data": DATA, "split": SPLIT, "metrics": METRICS, "times": dict.fromkeys(STAGES, "12 min 34 s")} | changes
    places = {"model": "models/finetuned/", "report": "reports/report.html"}
    return summary.table(**values, places=places, commands=summary.next_commands("models/finetuned", Path("nowhere")))


def events(directory: Path, stage: str, start: float, *, seconds: float | None, status: str = "ok") -> None:
    directory.mkdir(exist_ok=True)
    lines = [{"t": start, "stage": stage, "kind": "start"}]
    if seconds is not None:
        lines.append({"t": start + seconds, "stage": stage, "kind": "end", "status": status, "seconds": seconds})
    (directory / f"{stage}.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"t": 1, "cut')


def test_the_table_says_it_all_in_100_columns() -> None:
    text = table()
    assert max(map(len, text.splitlines())) <= 100
    for part in (
        "33,530, of these 8,530 not asked for",
        "99 (duplicate 97, empty 1, missing label 1, 1 more reasons)",
        "train 2,000, validation 500, test 1,000",
        "89.2 % (87.1 to 91.0) on 1,000 test rows",
        "86.6 %",
        "+2.6 points (+0.5 to +4.7), McNemar mid-p = 0.015",
        "reports/report.html",
    ):
        assert part in text, part
    assert text.count("12 min 34 s") == 7
    assert text.split(" next:")[1].count("   # ") == 3


def test_without_a_baseline_it_is_left_out() -> None:
    text = table(metrics={"test": SCORES})
    assert "baseline" not in text
    assert "difference" not in text


def test_times_are_those_of_this_run(tmp_path: Path) -> None:
    events(tmp_path, "fetch", 50.0, seconds=1.25)  # an earlier run
    events(tmp_path, "clean", 100.0, seconds=75)
    events(tmp_path, "train", 200.0, seconds=None)
    events(tmp_path, "evaluate", 300.0, seconds=2, status="failed")
    found = summary.stage_times(tmp_path, ["fetch", "clean", "split", "train", "evaluate"], 100.02)
    assert found == {"fetch": "cached", "clean": "1 min 15 s", "split": "cached", "train": "running", "evaluate": "failed"}
    assert summary.stage_times(tmp_path, ["fetch"], None) == {"fetch": "1.2 s"}


def test_commands_work_in_the_shell_they_are_shown_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    assert summary.next_commands("m", tmp_path)[1][0].startswith(".venv/bin/dvc")
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / ".venv"))
    assert summary.next_commands("m", tmp_path)[1][0].startswith("dvc")


def test_no_finished_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no finished run here"):
        summary.load(tmp_path)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["summary"]) == 2
    assert "dvc repro" in capsys.readouterr().err
    (tmp_path / "reports").mkdir()
    for name, value in (("data", DATA), ("split", SPLIT), ("metrics", METRICS)):
        (tmp_path / "reports" / f"{name}.json").write_text(json.dumps(value))
    events_dir = tmp_path / ".dagobert"
    events_dir.mkdir()
    (events_dir / summary.STARTED).touch()
    os.utime(events_dir / summary.STARTED, (100, 100))
    events(events_dir / "events", "train", 150.0, seconds=61)
    assert main(["summary"]) == 0
    out = capsys.readouterr().out
    assert "train 1 min 01 s" in out
    assert "fetch cached" in out
