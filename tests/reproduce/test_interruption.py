"""`dagobert reproduce` that is told to end leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.reproduce import toy

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path({mark!r}).write_text(str(os.getpid()))
time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_it_started_ends_with_it(toy_root: Path, tmp_path: Path, number: signal.Signals) -> None:
    mark = tmp_path / "pid"
    with (toy_root / "code/train.py").open("a") as file:
        file.write(STUBBORN.format(mark=str(mark)))
    toy.commit(toy_root, "A stage that takes its time and does not listen")
    here = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "dagobert", "reproduce"],
        cwd=toy_root,
        env=os.environ | {"PYTHONPATH": str(here)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background may ignore it
    )
    started: list[psutil.Process] = []
    try:
        wait_for(lambda: mark.is_file() and mark.read_text() != "")
        started += [psutil.Process(int(mark.read_text())), *psutil.Process(process.pid).children(recursive=True)]
        assert any("dvc" in " ".join(each.cmdline()) for each in started)
        assert list((toy_root / ".dagobert/clones").iterdir())
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        left = [each for each in started if alive(each)]
        for each in left:
            each.kill()
    assert process.returncode == 128 + number
    assert ("ended by SIGTERM" if number == signal.SIGTERM else "interrupted") in said
    assert "Traceback" not in said
    assert not left
    assert not list((toy_root / ".dagobert/clones").iterdir())


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
