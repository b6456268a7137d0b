"""Runs a command on a leash, shows its lines as they come, and ends it and all it started when time is up or the caller leaves.

The caller leaves by an exception: Prefect turns SIGTERM (cancellation) and Ctrl-C into one in the main thread. A task's own
`timeout_seconds` could not interrupt a blocking call, so time is kept here.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tasks import leash

GRACE = 20.0  # seconds between SIGTERM and SIGKILL; below the 30 s that Prefect leaves a cancelled flow
_QUICK_GRACE = 5.0
_TICK = 0.2
_TAIL = 200


@dataclass(frozen=True)
class Finished:
    """How a command ended. `tail` holds its last lines; `timed_out` says that it was ended for taking too long."""

    returncode: int
    tail: tuple[str, ...]
    seconds: float
    timed_out: bool


def run(
    command: Sequence[str],
    cwd: Path,
    environment: dict[str, str],
    *,
    timeout: float | None = None,
    grace: float = GRACE,
    on_line: Callable[[str], None] = lambda line: None,
    on_tick: Callable[[], None] = lambda: None,
) -> Finished:
    """Run a command to its end.

    Args:
        timeout: seconds after which it is ended; None: never.
        on_line: called with each line of its output (stdout and stderr together, without the newline).
        on_tick: called about five times a second meanwhile.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        _held(command, grace),
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    tail: deque[str] = deque(maxlen=_TAIL)
    timed_out = False
    try:
        while (line := _next(lines)) is not None:
            if line:
                tail.append(line)
                on_line(line)
            on_tick()
            if timeout is not None and not timed_out and time.monotonic() - started > timeout:
                timed_out = True
                process.send_signal(signal.SIGTERM)
        process.wait()
        on_tick()
    finally:
        _end(process, grace)
    return Finished(process.returncode, tuple(tail), time.monotonic() - started, timed_out)


def output(command: Sequence[str], cwd: Path, environment: dict[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command that only looks or is quick, on a leash; what it wrote is kept apart from what it said on stderr.

    Raises:
        TimeoutError: it took longer than `timeout` seconds, and was ended.
    """
    with subprocess.Popen(
        _held(command, _QUICK_GRACE),
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        errors="replace",
    ) as process:
        try:
            written, said = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"`{' '.join(command)}` was ended after {timeout:,.0f} s") from None
        finally:
            _end(process, _QUICK_GRACE)
    return subprocess.CompletedProcess(list(command), process.returncode, written, said)


def _held(command: Sequence[str], grace: float) -> list[str]:
    return [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), str(grace), *command]


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line.rstrip("\n"))
    lines.put(None)


def _next(lines: queue.SimpleQueue[str | None]) -> str | None:
    """The next line; empty when there is none yet, None when there will be none."""
    try:
        return lines.get(timeout=_TICK)
    except queue.Empty:
        return ""


def _end(process: subprocess.Popen[str], grace: float) -> None:
    """Have the leash end everything; end the leash itself if it does not."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=grace + 5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
