"""Has DVC bring one stage up to date, shows what happens, and says in one message what went wrong.

Plain code without Prefect, so that it can be tested without a server.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dagobert.events import duration
from tasks import dvc, processes
from tasks.errors import SourceUnavailableError, StageError, StageInterruptedError, StageTimeoutError
from tasks.watch import Event, Follower
from tasks.workplace import Workplace

Logger = logging.Logger | logging.LoggerAdapter[Any]

PREEMPTED = 75  # EX_TEMPFAIL: the stage stopped on request and will go on when it is run again
LOG_INTERVAL = 10.0  # seconds between progress lines in the run's log
BUSY_WAIT, LONGEST_BUSY_WAIT = 2.0, 30.0  # seconds before another try while another DVC command has the files; it doubles
BUSY_INTERVAL = 60.0  # seconds between lines about that in the run's log
_ADVICE = ("To track", "\tgit add", "To enable", "\tdvc config", "Use `dvc push`", "Generating lock", "Updating lock")
_NETWORK_WORDS = (
    "network",
    "connection",
    "timed out",
    "timeout",
    "temporar",
    "unreachable",
    "name resolution",
    " 502",
    " 503",
    " 504",
    " 429",
)


def run_stage(
    place: Workplace,
    stage: str,
    *,
    timeout: float,
    logger: Logger,
    on_event: Callable[[Event], None] = lambda event: None,
    force: bool = False,
    grace: float = processes.GRACE,
) -> dict[str, Any]:
    """Bring one stage up to date; with `force`, run it although it is.

    Returns:
        `{"stage", "how": "ran" | "restored" | "up to date", "seconds"}`.
    Raises:
        StageError: or one of its kinds, with the stage's own words.
    """
    started = time.monotonic()
    targets = [stage]
    if stage == "clean":
        targets = [*dvc.data_files(place.root, stage), stage]
    patience = _Patience(stage, logger)
    while True:
        if dvc.mend_locks(place.root):
            logger.warning("Removed .dvc/tmp/rwlock: a DVC that was killed while it wrote it had left it unreadable")
        watcher = _Watcher(place.events, stage, logger, on_event)
        finished = processes.run(
            dvc.repro_command(*targets, force=force),
            place.root,
            dvc.environment(place.root),
            timeout=timeout - (time.monotonic() - started),
            grace=grace,
            on_line=watcher.line,
            on_tick=watcher.tick,
        )
        if finished.returncode == 0:
            seconds = round(time.monotonic() - started, 3)
            return {"stage": stage, "how": dvc.how_it_went(finished.tail, stage), "seconds": seconds}
        if not _busy(finished) or finished.timed_out:
            raise failure(stage, finished, watcher.error, timeout)
        patience.wait(dvc.blocking(finished.tail))


def failure(stage: str, finished: processes.Finished, error: str | None, timeout: float) -> StageError:
    """The error to raise for a command that failed; `error` is the stage's own, where it had the time to say it."""
    if finished.timed_out:
        return StageTimeoutError(f"{stage} was ended because it took longer than {duration(timeout)}.")
    code = dvc.exit_code_of_stage(finished.tail)
    if code == PREEMPTED:
        return StageInterruptedError(f"{stage} was asked to stop and saved its state. Run it again to go on.")
    if code is not None and (number := _signal(code)):
        return StageInterruptedError(f"{stage} was killed (signal {number}; 9 is often the system running out of memory).")
    if code is None and (number := _signal(finished.returncode)):
        return StageInterruptedError(f"DVC was killed while it ran {stage} (signal {number}).")
    if error is None:
        words = "\n".join(_own_words(finished.tail))
        return StageError(f"{stage} failed (exit code {finished.returncode if code is None else code}):\n{words}")
    kind, _, message = error.partition(": ")
    if kind == "SourceError" and any(word in message.lower() for word in _NETWORK_WORDS):
        return SourceUnavailableError(f"{stage}: {message}")
    return StageError(f"{stage}: {message}" if kind.endswith("Error") else f"{stage}: {error}")


def _signal(code: int) -> int:
    """The signal an exit code stands for, 0 for none; DVC's own failure is 255."""
    return -code if code < 0 else code - 128 if 128 < code <= 128 + 64 else 0


def _busy(finished: processes.Finished) -> bool:
    return any(dvc.BUSY in line for line in finished.tail)


def _own_words(lines: tuple[str, ...]) -> list[str]:
    return [line for line in lines if not line.startswith(("Running stage", "> "))][-30:]


class _Patience:
    """Waits longer and longer for whoever has the files, and says so now and then."""

    def __init__(self, stage: str, logger: Logger) -> None:
        self.stage, self.logger = stage, logger
        self._wait, self._said = BUSY_WAIT, -math.inf

    def wait(self, holder: str) -> None:
        if time.monotonic() - self._said >= BUSY_INTERVAL:
            self._said = time.monotonic()
            self.logger.info("%s waits: another DVC command works on the same files: %s", self.stage, holder)
        time.sleep(self._wait)
        self._wait = min(2 * self._wait, LONGEST_BUSY_WAIT)


class _Watcher:
    """Passes a stage's events and lines on to the log; keeps the error it ended with."""

    def __init__(self, directory: Path, stage: str, logger: Logger, on_event: Callable[[Event], None]) -> None:
        self.stage, self.logger, self.on_event = stage, logger, on_event
        self.follower = Follower(directory / f"{stage}.jsonl")
        self.error: str | None = None
        self._logged = 0.0

    def line(self, text: str) -> None:
        if text.startswith(f"{self.stage}: "):  # the stage's own lines come as events
            return
        self.logger.log(logging.DEBUG if text.startswith(_ADVICE) else logging.INFO, "%s", text)

    def tick(self) -> None:
        for event in self.follower.new():
            self._log(event)
            self.on_event(event)

    def _log(self, event: Event) -> None:
        kind = event.get("kind")
        if kind == "fact" and event.get("name") == "message":
            self.logger.info("%s", event["message"])
        elif kind == "warning":
            self.logger.warning("%s", event["message"])
        elif kind == "progress":
            now = time.monotonic()
            if now - self._logged >= LOG_INTERVAL:
                self._logged = now
                self.logger.info("%s", progress_line(event))
        elif kind == "end" and event.get("status") == "failed":
            self.error = str(event.get("error"))


def progress_line(event: Event) -> str:
    """A progress event for people: `training 120/250 steps, 2.1/s, 1 min 02 s left, loss 0.41`."""
    known = {"t", "stage", "kind", "what", "done", "total", "unit", "rate", "remaining"}
    total = event.get("total")
    of = "" if total is None else f"/{total:,}"
    remaining = event.get("remaining")
    left = "" if remaining is None else f", {duration(remaining)} left"
    extra = "".join(f", {k} {v:.4g}" if isinstance(v, float) else f", {k} {v}" for k, v in event.items() if k not in known)
    return f"{event.get('what')} {event.get('done', 0):,}{of} {event.get('unit')}, {event.get('rate') or 0:,.4g}/s{left}{extra}"
