from __future__ import annotations

from pathlib import Path

import pytest

from tasks import dvc, running
from tasks.errors import SourceUnavailableError, StageError, StageInterruptedError, StageTimeoutError
from tasks.labels import number, run_label
from tasks.processes import Finished


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
