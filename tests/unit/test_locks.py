from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dagobert import events, locks

HOLD = """
import sys, time
from pathlib import Path
from dagobert import locks
with locks.training("cpu", Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_waits_says_for_whom_and_goes_on_when_the_first_is_killed(tmp_path: Path, repository: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=repository, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    second = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=repository, stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    assert second.poll() is None
    os.kill(first.pid, signal.SIGKILL)
    assert second.stdout is not None
    assert second.stdout.readline() == "held\n"
    for process in (first, second):
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_wait_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    fd = os.open(tmp_path / locks.NAME, os.O_RDWR | os.O_CREAT)
    os.write(fd, b"123\n")
    fcntl.flock(fd, fcntl.LOCK_EX)
    monkeypatch.setattr(time, "sleep", lambda _: os.close(fd))
    with events.recording("train", tmp_path / "e.jsonl"), locks.training("cpu", tmp_path):
        assert (tmp_path / locks.NAME).read_text() == f"{os.getpid()}\n"
    messages = [json.loads(line).get("message") for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert "waiting for another training on this repository to end (process 123)" in messages


@pytest.mark.parametrize(
    ("visible", "locked"),
    [
        ("0", ["0"]),
        ("1, 0,0", ["0", "1"]),
        ("10,9", ["9", "10"]),
        ("GPU-8f/1", ["GPU-8f-1"]),
        (None, ["0", "1", "2"]),
        ("", ["0"]),
    ],
)
def test_each_gpu_is_locked_for_the_machine_in_one_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, locked: list[str]
) -> None:
    for index in range(3):
        (tmp_path / "gpus" / f"0000:0{index}:00.0").mkdir(parents=True)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(locks, "_GPUS", tmp_path / "gpus")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert locks.visible_gpus() == locked
    with locks.training("cuda", tmp_path / "elsewhere"):
        assert {path.name for path in (tmp_path / "tmp").iterdir()} == {f"dagobert-cuda-{name}.lock" for name in locked}


def test_a_training_on_two_gpus_waits_for_one_on_the_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    fd = os.open(tmp_path / "dagobert-cuda-1.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        os.close(fd)

    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(time, "sleep", sleep)
    with locks.training("cuda", tmp_path / "elsewhere"):
        assert len(waited) == 1
