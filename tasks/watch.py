"""Follows `.dagobert/events/STAGE.jsonl` while a stage writes it.

A stage starts its file afresh (same file, cut to nothing), so the follower knows a new one by its first line, and skips what
was written before it began to look.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class Follower:
    """Gives the events of one stage, each once, as they are written."""

    def __init__(self, path: Path, since: float | None = None) -> None:
        """Begin at `since` (Unix seconds; default: now)."""
        self.path = path
        self.since = time.time() - 0.01 if since is None else since  # events round their time to milliseconds
        self._first = b""
        self._offset = 0

    def new(self) -> Iterator[Event]:
        """The events since the last call; whole lines only."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            if (first := file.readline()) != self._first:
                self._first, self._offset = first, 0
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                event = _parse(line)
                if event is not None and event["t"] >= self.since:
                    yield event


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("t"), int | float) else None
