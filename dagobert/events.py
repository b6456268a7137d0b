"""Progress and facts of a stage, as JSON lines.

One stream, three readers: the line on the terminal, the Prefect task that tails the file, and `dagobert summary` (seconds a
stage took). Times live here and never in a stage's outputs, which must be the same bytes whenever they are made.
Outside `recording` every call is a cheap no-op, so the library is silent when it is used as a library.

A line is `{"t": unix seconds, "stage": str, "kind": "start" | "progress" | "fact" | "warning" | "end", …}`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

_PLAIN_INTERVAL = 5.0  # seconds between progress lines where there is no terminal
_TERMINAL_INTERVAL = 0.2
_QUIET = 2.0  # a step shorter than this shows no progress
_FILE_INTERVAL = 0.5


class Recorder:
    """Writes events to a file and shows them to a person."""

    def __init__(self, stage: str, file: TextIO | None, console: TextIO) -> None:
        self.stage = stage
        self._file = file
        self._console = console
        self._terminal = console.isatty()
        self._open_line = False

    def write(self, kind: str, **facts: Any) -> None:
        """Append one event to the file."""
        if self._file is not None:
            record = {"t": round(time.time(), 3), "stage": self.stage, "kind": kind, **facts}
            self._file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
            self._file.flush()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        print(f"{self.stage}: {text}", file=self._console, flush=True)

    def bar(self, text: str) -> None:
        """Show progress: in place on a terminal, as a line elsewhere."""
        if self._terminal:
            self._console.write(f"\r\x1b[2K{self.stage}: {text}")
            self._console.flush()
            self._open_line = True
        else:
            self.line(text)

    def clear(self) -> None:
        """Remove the progress line from the terminal."""
        if self._open_line:
            self._console.write("\r\x1b[2K")
            self._console.flush()
            self._open_line = False

    @property
    def interval(self) -> float:
        """Seconds between two showings of progress."""
        return _TERMINAL_INTERVAL if self._terminal else _PLAIN_INTERVAL


_current: Recorder | None = None


@contextmanager
def recording(stage: str, path: Path | None, console: TextIO | None = None) -> Iterator[Recorder]:
    """Send the events of this block to `path` (one file a stage, started afresh) and to `console` (default: stderr)."""
    global _current
    file = None
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        file = path.open("a", encoding="utf-8")  # another process may be `joining`
    recorder = Recorder(stage, file, console or sys.stderr)
    before, _current = _current, recorder
    started = time.monotonic()
    recorder.write("start")
    try:
        yield recorder
    except BaseException as error:
        recorder.write(
            "end", status="failed", seconds=round(time.monotonic() - started, 3), error=f"{type(error).__name__}: {error}"
        )
        raise
    else:
        seconds = time.monotonic() - started
        recorder.write("end", status="ok", seconds=round(seconds, 3))
        recorder.line(f"done in {duration(seconds)}")
    finally:
        recorder.clear()
        _current = before
        if file is not None:
            file.close()


@contextmanager
def joining(stage: str, path: Path) -> Iterator[None]:
    """Add the events of this block to those of another process that is `recording` the stage to `path`."""
    global _current
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        before, _current = _current, Recorder(stage, file, sys.stderr)
        try:
            yield
        finally:
            _current.clear()
            _current = before


def fact(name: str, **facts: Any) -> None:
    """Record a fact that a program may want (never shown)."""
    if _current is not None:
        _current.write("fact", name=name, **facts)


def say(message: str, **facts: Any) -> None:
    """Record and show one line a person wants to read."""
    if _current is not None:
        _current.write("fact", name="message", message=message, **facts)
        _current.line(message)


def warn(message: str, **facts: Any) -> None:
    """Record and show a warning: something the user should look at, that did not stop the run."""
    if _current is not None:
        _current.write("warning", message=message, **facts)
        _current.line(f"warning: {message}")


class Progress:
    """How far a step is, with rate and remaining time. Use through `progress`."""

    def __init__(self, what: str, total: int | None, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._first = 0
        self._facts: dict[str, Any] = {}
        self._started = self._shown = self._written = time.monotonic()

    def start_at(self, done: int) -> None:
        """Begin at `done` (a resumed run), so that the rate counts only what is done from here."""
        self.done = self._first = done

    def update(self, n: int = 1, **facts: Any) -> None:
        """Count `n` more units; `facts` (loss, accuracy …) are shown beside the rate."""
        self.done += n
        self._facts = facts or self._facts
        recorder, now = _current, time.monotonic()
        if recorder is None:
            return
        if now - self._written >= _FILE_INTERVAL:
            self._write(recorder, now)
        if now - self._started >= _QUIET and now - self._shown >= recorder.interval:
            self._shown = now
            recorder.bar(self._text(now))

    def finish(self) -> None:
        """Record the last state, which `update` may have skipped."""
        if _current is not None:
            self._write(_current, time.monotonic())
            _current.clear()

    def _rate(self, now: float) -> float:
        return (self.done - self._first) / max(now - self._started, 1e-9)

    def _remaining(self, now: float) -> float | None:
        rate = self._rate(now)
        return None if self.total is None or rate <= 0 else (self.total - self.done) / rate

    def _write(self, recorder: Recorder, now: float) -> None:
        self._written = now
        remaining = self._remaining(now)
        recorder.write(
            "progress",
            what=self.what,
            done=self.done,
            total=self.total,
            unit=self.unit,
            rate=round(self._rate(now), 3),
            remaining=None if remaining is None else round(remaining, 1),
            **self._facts,
        )

    def _text(self, now: float) -> str:
        of = "" if self.total is None else f"/{self.total:,} ({self.done / max(self.total, 1):.0%})"
        remaining = self._remaining(now)
        left = "" if remaining is None else f", {duration(remaining)} left"
        extra = "".join(f", {k} {v:.4g}" if isinstance(v, float) else f", {k} {v}" for k, v in self._facts.items())
        return f"{self.what} {self.done:,}{of} {self.unit}, {self._rate(now):,.4g}/s{left}{extra}"


@contextmanager
def progress(what: str, total: int | None = None, unit: str = "rows") -> Iterator[Progress]:
    """Show how far a step is: `with progress("reading", total) as bar: … bar.update(n)`."""
    bar = Progress(what, total, unit)
    try:
        yield bar
    finally:
        bar.finish()


def duration(seconds: float) -> str:
    """Seconds for people: `0.7 s`, `42 s`, `5 min 03 s`, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
