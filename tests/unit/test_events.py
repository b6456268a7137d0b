from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from dagobert import events


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_stage_leaves_start_facts_and_end(tmp_path: Path) -> None:
    path, console = tmp_path / "events" / "clean.jsonl", io.StringIO()
    with events.recording("clean", path, console):
        events.say("12 rows", rows=12)
        events.warn("something odd")
        events.fact("hash", sha256="ab")
    lines = read(path)
    assert [line["kind"] for line in lines] == ["start", "fact", "warning", "fact", "end"]
    assert lines[1]["rows"] == 12
    assert lines[-1]["status"] == "ok"
    assert all(line["stage"] == "clean" for line in lines)
    shown = console.getvalue()
    assert "clean: 12 rows\n" in shown
    assert "warning: something odd" in shown
    assert "ab" not in shown


def test_a_failure_is_recorded_and_goes_on_up(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with pytest.raises(ValueError, match="broken"), events.recording("x", path, io.StringIO()):
        raise ValueError("broken")
    end = read(path)[-1]
    assert end["status"] == "failed"
    assert end["error"] == "ValueError: broken"
    events.say("nobody listens any more")
    assert len(read(path)) == 2


def test_a_new_run_starts_the_file_afresh(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for _ in range(2):
        with events.recording("x", path, io.StringIO()):
            pass
    assert len(read(path)) == 2


def test_progress_counts_and_estimates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: now[0])
    path, console = tmp_path / "x.jsonl", io.StringIO()
    with events.recording("x", path, console), events.progress("reading", 100) as bar:
        for _ in range(5):
            now[0] += 2.0
            bar.update(10, loss=0.5)
    progress = [line for line in read(path) if line["kind"] == "progress"]
    # 50 of 100 rows in 10 s: 5 rows a second, 10 s left
    assert progress[-1] | {"t": 0} == {
        "t": 0,
        "stage": "x",
        "kind": "progress",
        "what": "reading",
        "done": 50,
        "total": 100,
        "unit": "rows",
        "rate": 5.0,
        "remaining": 10.0,
        "loss": 0.5,
    }
    assert "x: reading 30/100 (30%) rows, 5/s, 14 s left, loss 0.5" in console.getvalue()


def test_a_resumed_step_counts_its_rate_from_where_it_went_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: now[0])
    path = tmp_path / "x.jsonl"
    with events.recording("x", path, io.StringIO()), events.progress("training", 100, "steps") as bar:
        bar.start_at(90)
        now[0] = 5.0
        bar.update(5)
    assert read(path)[-2]["rate"] == 1.0
    assert read(path)[-2]["remaining"] == 5.0


def test_a_short_step_shows_nothing() -> None:
    console = io.StringIO()
    with events.recording("x", None, console), events.progress("reading", 2) as bar:
        bar.update(2)
    assert "reading" not in console.getvalue()


def test_without_a_recorder_everything_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    events.say("a")
    events.warn("b")
    with events.progress("c", 1) as bar:
        bar.update()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.4, "59 s"), (60, "1 min 00 s"), (303, "5 min 03 s"), (7500, "2 h 05 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert events.duration(seconds) == text
