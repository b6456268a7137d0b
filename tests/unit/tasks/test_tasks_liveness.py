from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from tasks import liveness


def test_the_living_and_the_dead(tmp_path: Path) -> None:
    run = uuid4()
    assert liveness.is_alive(tmp_path, run) is None
    with liveness.alive(tmp_path, run):
        assert liveness.is_alive(tmp_path, run)
        assert list(liveness._killed(tmp_path)) == []
    assert liveness.is_alive(tmp_path, run) is None
    (tmp_path / ".dagobert" / "runs" / str(run)).touch()  # left by a process that was killed
    assert liveness.is_alive(tmp_path, run) is False
    assert list(liveness._killed(tmp_path)) == [run]
    with liveness.alive(tmp_path, run):  # run again
        assert liveness.is_alive(tmp_path, run)


def test_looking_never_disturbs_the_living_nor_finds_a_run_dead_that_ends_well(tmp_path: Path) -> None:
    run, seen, over = uuid4(), set[bool | None](), threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.add(liveness.is_alive(tmp_path, run))

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(2000):
        with liveness.alive(tmp_path, run):
            pass
    over.set()
    watcher.join()
    assert False not in seen


@pytest.mark.parametrize(
    ("kind", "age", "pid", "here", "dead"),
    [
        ("PENDING", 200, None, True, False),
        ("PENDING", 400, None, True, True),
        ("RUNNING", 9999, None, True, False),
        ("RUNNING", 9999, "self", True, False),  # the process of this test
        ("PENDING", 9999, "self", True, False),
        ("RUNNING", 9999, "4194304", True, True),  # above the largest process id of Linux
        ("RUNNING", 20, "4194304", True, False),
        ("CANCELLING", 60, "4194304", True, True),
        ("RUNNING", 9999, "4194304", False, False),  # perhaps another machine's
    ],
)
def test_a_run_without_a_file_is_judged_by_its_process(kind: str, age: int, pid: str | None, here: bool, dead: bool) -> None:
    now = datetime.now(UTC)
    state = SimpleNamespace(type=kind, timestamp=now - timedelta(seconds=age))
    run: Any = SimpleNamespace(state=state, infrastructure_pid=pid and pid.replace("self", str(os.getpid())))
    assert liveness._never_began(run, here, now) is dead
