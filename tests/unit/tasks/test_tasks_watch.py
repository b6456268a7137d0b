from __future__ import annotations

import json
from pathlib import Path

from dagobert import events
from tasks.watch import Follower


def test_each_event_once_and_only_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    follower = Follower(path, since=0)
    assert list(follower.new()) == []
    path.write_text('{"t": 1, "kind": "start"}\n{"t": 2, "ki')
    assert [event["t"] for event in follower.new()] == [1]
    assert list(follower.new()) == []
    with path.open("a") as file:
        file.write('nd": "end"}\nnot json\n[1]\n{"t": 3}\n')
    assert [event["t"] for event in follower.new()] == [2, 3]


def test_a_file_started_afresh_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"t": t}) + "\n" for t in range(1, 50)))
    follower = Follower(path, since=0)
    assert len(list(follower.new())) == 49
    path.write_text("".join(json.dumps({"t": t}) + "\n" for t in range(100, 200)))
    assert [event["t"] for event in follower.new()] == list(range(100, 200))


def test_what_an_earlier_run_wrote_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "clean.jsonl"
    with events.recording("clean", path):
        events.say("old")
    path.write_text(path.read_text().replace('"t": 1', '"t": 0'))  # seconds of today begin with 1
    follower = Follower(path)
    assert list(follower.new()) == []
    with events.recording("clean", path):
        events.say("new")
    assert [event["kind"] for event in follower.new()] == ["start", "fact", "end"]
