"""A stage that fails, hangs or is killed: a plain reason, nothing left running or half-written, and the next run is fine."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tasks import running
from tasks.errors import SourceUnavailableError, StageError, StageInterruptedError, StageTimeoutError
from tasks.workplace import Workplace
from tests.flows.processes import of_project, stage_process, wait_until_none
from tests.flows.projects import environment, set_fault, sh, status

LOGGER = logging.getLogger("tests.flows")


@pytest.fixture(autouse=True)
def library_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.fspath(Path(__file__).resolve().parents[2]))


def run(project: Path, stage: str = "fetch", **options: Any) -> dict[str, Any]:
    place = Workplace(root=project, origin=project, revision=None)
    return running.run_stage(place, stage, **{"timeout": 120, "logger": LOGGER, **options})


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ({"kill": 9}, StageInterruptedError, "signal 9"),
        ({"exit": 75}, StageInterruptedError, "asked to stop"),
        ({"error": "https://x: the network is unreachable"}, SourceUnavailableError, "fetch: https://x"),
        ({"error": "there is no a.csv"}, StageError, "fetch: there is no a.csv"),
    ],
)
def test_the_reason_is_plain_and_the_next_run_is_fine(
    project: Path, fault: dict[str, Any], kind: type[Exception], words: str
) -> None:
    set_fault(project, "fetch", **fault)
    with pytest.raises(kind, match=words) as caught:
        run(project)
    assert type(caught.value) is kind
    assert not (project / "dvc.lock").exists()
    assert of_project(project) == []
    assert run(project)["how"] == "ran"


def test_a_hanging_stage_is_ended_when_its_time_is_up(project: Path) -> None:
    set_fault(project, "fetch", deaf=60)
    started = time.monotonic()
    with pytest.raises(StageTimeoutError, match=r"took longer than 4.0 s"):
        run(project, timeout=4, grace=1)
    assert time.monotonic() - started < 30
    assert of_project(project) == []
    assert run(project)["how"] == "ran"


def test_a_manual_repro_at_the_same_time_loses_nothing(project: Path) -> None:
    set_fault(project, "fetch", seconds=4)
    manual = subprocess.Popen(["dvc", "--wait-for-lock", "repro", "-q", "fetch"], cwd=project, env=environment())
    stage_process(project, "fetch")
    assert run(project)["how"] == "up to date"  # it waited for the other to finish
    assert manual.wait() == 0


def test_a_damaged_lock_file_is_named(project: Path) -> None:
    run(project)
    good = (project / "dvc.lock").read_text()
    (project / "dvc.lock").write_text("schema: '2.0'\nstages: [")
    with pytest.raises(StageError, match=r"dvc\.lock"):
        run(project)
    (project / "dvc.lock").write_text(good)
    assert run(project)["how"] == "up to date"


def test_data_added_by_hand_is_recorded_like_repro_does(project: Path) -> None:
    (project / "mine").mkdir()
    (project / "mine" / "a.csv").write_text("text,label\na,0\n")
    sh(project, "dvc", "add", "-q", "mine/a.csv")
    graph = json.loads((project / "dvc.yaml").read_text())
    graph["stages"]["clean"]["deps"].append("mine/a.csv")
    (project / "dvc.yaml").write_text(json.dumps(graph))
    sh(project, "dvc", "repro", "-q", "clean")
    (project / "mine" / "a.csv").write_text("text,label\nb,1\n")
    assert run(project, "clean")["how"] == "ran"
    assert {name for name in status(project) if "mine" in name or name == "clean"} == set()


def start_flow(project: Path, server: Any) -> subprocess.Popen[bytes]:
    values = {**environment(), **server.environment()}
    return subprocess.Popen([sys.executable, "-m", "flows.finetune"], cwd=project, env=values, start_new_session=True)


def test_training_that_was_killed_is_run_again(in_project: Path) -> None:
    from flows.finetune import finetune

    set_fault(in_project, "train", kill=9)
    state = finetune(return_state=True)
    assert state.is_completed()
    assert status(in_project) == {}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_flow_that_is_killed_or_cancelled_leaves_nothing_running(
    project: Path, prefect_server: Any, number: signal.Signals
) -> None:
    sh(project, "dvc", "repro", "-q", "clean")
    set_fault(project, "encode-labels", seconds=60)
    flow = start_flow(project, prefect_server)
    stage_process(project, "encode-labels")
    killer = threading.Timer(0.5, lambda: os.kill(flow.pid, number))
    killer.start()
    assert flow.wait(timeout=60) != 0
    wait_until_none(project)
    assert not (project / "data" / "labels.parquet").exists()
    assert run(project, "encode-labels")["how"] == "ran"
