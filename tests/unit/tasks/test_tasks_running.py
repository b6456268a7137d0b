from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks import dvc, running
from tasks.errors import SourceUnavailableError, StageError, StageInterruptedError, StageTimeoutError, WorkplaceError
from tasks.labels import number, run_label
from tasks.processes import Finished
from tasks.workplace import Workplace


def finished(*tail: str, returncode: int = 255, timed_out: bool = False) -> Finished:
    return Finished(returncode, tail, 1.0, timed_out)


def failed_with(code: int) -> Finished:
    return finished(
        "> dagobert train", f"ERROR: failed to reproduce 'train': failed to run: dagobert train, exited with {code}"
    )


@pytest.mark.parametrize(
    ("how", "error", "kind", "words"),
    [
        (failed_with(75), None, StageInterruptedError, "asked to stop"),
        (failed_with(-9), None, StageInterruptedError, "killed (signal 9"),
        (failed_with(137), None, StageInterruptedError, "killed (signal 9"),
        (finished(returncode=143), None, StageInterruptedError, "DVC was killed"),
        (finished(timed_out=True), None, StageTimeoutError, "longer than 42 s"),
        (failed_with(2), "SourceError: https://x: network is unreachable", SourceUnavailableError, "https://x"),
        (failed_with(2), "SourceError: a.csv: no such file", StageError, "a.csv: no such file"),
        (failed_with(2), "LabelError: a.csv:3: label 'x'", StageError, "train: a.csv:3"),
        (failed_with(1), "KeyboardInterrupt: ", StageError, "KeyboardInterrupt"),
        (failed_with(2), None, StageError, "exit code 2"),
        (finished("ERROR: failed to reproduce 'train': no such file", returncode=255), None, StageError, "no such file"),
    ],
)
def test_failures_are_told_apart(how: Finished, error: str | None, kind: type[Exception], words: str) -> None:
    failure = running.failure("train", how, error, timeout=42)
    assert type(failure) is kind
    assert words in str(failure)


def test_what_dvc_did() -> None:
    assert (
        dvc.how_it_went(("Stage 'clean' didn't change, skipping", "Data and pipelines are up to date."), "clean")
        == "up to date"
    )
    cached = "Stage 'clean' is cached - skipping run, checking out outputs"
    assert dvc.how_it_went((cached, "Updating lock file 'dvc.lock'"), "clean") == "restored"
    assert dvc.how_it_went(("Running stage 'clean':", "> dagobert clean"), "clean") == "ran"


def test_progress_for_people() -> None:
    event = {"t": 1, "stage": "train", "kind": "progress", "what": "training", "done": 1200, "total": 2500, "unit": "steps"}
    line = running.progress_line({**event, "rate": 2.5, "remaining": 62, "loss": 0.41})
    assert line == "training 1,200/2,500 steps, 2.5/s, 1 min 02 s left, loss 0.41"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-4, "1e-4"), (5e-5, "5e-5"), (1.5e-5, "1.5e-5"), (0.01, "0.01"), (2.0, "2"), (0, "0"), (1e-3, "0.001")],
)
def test_numbers_as_people_write_them(value: float, text: str) -> None:
    assert number(value) == text


def test_run_names_say_what_ran(repository: Path, tmp_path: Path) -> None:
    assert run_label("train", repository) == "train · lr 1e-4 · seed 42"
    assert run_label("clean", repository) == "clean"
    assert run_label("train", tmp_path) == "train"


def test_this_pythons_commands_and_the_checkouts_code_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("PYTHONPATH", "/other")
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    environment = dvc.environment(tmp_path, {"X": "1"})
    assert environment["PYTHONPATH"] == f"{tmp_path}:/other"
    assert environment["PATH"].endswith("/bin:/usr/bin")
    assert "GIT_DIR" not in environment
    assert environment["X"] == "1"


BUSY = (
    "ERROR: 'data/clean.parquet' is busy, it is being blocked by:",
    "  (PID 4711): /usr/bin/dvc repro",
    "If there are no processes with such PIDs, you can manually remove '.dvc/tmp/rwlock' and try again.",
)


def test_a_busy_repository_is_told_once_a_minute_with_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waits, said = [0.0], list[float](), list[str]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds

    class Log(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger = logging.getLogger("tests.busy")
    logger.setLevel(logging.INFO)
    logger.addHandler(Log())
    monkeypatch.setattr(running.time, "sleep", sleep)
    monkeypatch.setattr(running.time, "monotonic", lambda: clock[0])
    ends = iter([finished(*BUSY)] * 9 + [finished(returncode=0)])
    monkeypatch.setattr(running.processes, "run", lambda *_, **__: next(ends))
    place = Workplace(root=tmp_path, origin=tmp_path, revision=None)
    assert running.run_stage(place, "fetch", timeout=9999, logger=logger)["how"] == "ran"
    assert waits == [2, 4, 8, 16, 30, 30, 30, 30, 30]
    words = "fetch waits: another DVC command works on the same files: (PID 4711): /usr/bin/dvc repro"
    assert said == [words, words, words]


def test_a_query_that_hangs_is_ended_and_says_who_has_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / ".dvc" / "tmp" / "lock").write_text(" 4711\n")
    with pytest.raises(WorkplaceError, match=r"`sleep 60` was ended after 1 s. The last .* was process 4711"):
        dvc._output(["sleep", "60"], tmp_path, timeout=1)


def test_a_query_ends_with_the_flow(tmp_path: Path, repository: Path) -> None:
    code = (
        "from pathlib import Path; from tasks import dvc; dvc._output(['sh', '-c', 'echo $$ > pid; sleep 60'], Path('.'), 60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(repository)})
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    owner.kill()
    owner.wait()
    pid = int((tmp_path / "pid").read_text())
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_query_writes_is_apart_from_what_it_says(tmp_path: Path) -> None:
    assert dvc._output(["sh", "-c", "echo out; echo err >&2"], tmp_path, 60) == "out"
    with pytest.raises(WorkplaceError, match=r"\(exit code 3\): err"):
        dvc._output(["sh", "-c", "echo err >&2; exit 3"], tmp_path, 60)
