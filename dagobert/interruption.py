"""SIGTERM and SIGHUP leave through every `finally`, so that what a command started ends and what it put down is removed.

Python dies of both at once by default. For commands that start other programs or make clones; a stage that trains listens for
itself (`training.StopRequest`) and saves its state.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def tidied_up() -> Iterator[None]:
    """In this block a signal raises SystemExit(128 + its number), once: further ones do not disturb the tidying up."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heeded = [number for number in _SIGNALS if before[number] is not signal.SIG_IGN]  # nohup stays nohup

    def leave(number: int, frame: FrameType | None) -> None:
        for each in heeded:
            signal.signal(each, signal.SIG_IGN)
        print(f"ended by {signal.Signals(number).name}", file=sys.stderr)
        raise SystemExit(128 + number)

    for number in heeded:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])
