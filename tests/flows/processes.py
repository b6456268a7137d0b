"""Finding and ending the processes of a project in tests."""

from __future__ import annotations

import time
from pathlib import Path

import psutil


def of_project(root: Path) -> list[psutil.Process]:
    """Processes that work in a directory (or below it), this one left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == psutil.Process().pid or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if Path(process.cwd()).is_relative_to(root):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def stage_process(root: Path, stage: str, timeout: float = 60) -> psutil.Process:
    """The process of a stage, when it is there."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for process in of_project(root):
            try:
                if process.cmdline()[1:] == ["fake_stage.py", stage]:
                    return process
            except psutil.Error:
                continue
        time.sleep(0.05)
    raise AssertionError(f"{stage} did not start")


def wait_until_none(root: Path, timeout: float = 30) -> None:
    """Wait until no process works in the directory.

    Raises:
        AssertionError: names those that are left.
    """
    deadline = time.monotonic() + timeout
    while left := of_project(root):
        assert time.monotonic() < deadline, [p.cmdline() for p in left]
        time.sleep(0.1)
