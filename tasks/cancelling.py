"""Ends a run that was cancelled when its worker does not.

A worker ends what it started itself. A flow outlives a worker that dies, and the next worker does nothing about a cancelled
run that has begun; a run that was started from a shell has no worker at all. Training would go on and hold the GPU for days, so
each run looks now and then whether it was cancelled, leaves a worker the time it takes, and then ends as Ctrl-C would end it.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled

LOOK = 10.0  # seconds between looks
PATIENCE = 40.0  # seconds that a worker is given: it waits 30 between SIGTERM and SIGKILL
_log = logging.getLogger(__name__)


@contextmanager
def heeded() -> Iterator[None]:
    """End this process when its flow run, or the one it is a part of, was cancelled a while ago and still works."""
    runs = _runs()
    if not runs:
        yield
        return
    watch = _Watch(runs)
    watch.start()
    ended = False
    try:
        yield
    except TerminationSignal:
        ended = True
        raise
    finally:
        watch.stop()
        if watch.cancelled or (not ended and watch.sees_it()):
            _conclude()  # a run that came to its end meanwhile, too: from Cancelling, Prefect lets it go nowhere else


def _runs() -> list[UUID]:
    """This flow run and the one that called it."""
    found = [flow_run.id]
    with contextlib.suppress(Exception):  # asks the server
        found.append(flow_run.parent_flow_run_id)
    return [UUID(str(run)) for run in found if run]


def _conclude() -> None:
    """Tell Prefect, and the engine above, that this is a cancellation; by itself it would call it a crash."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    state: State[Any] = Cancelled(message="The run was cancelled and ended by itself.")
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(context.flow_run.id, state, force=True)
        context.flow_run.state = state
    except Exception as error:
        _log.warning("The cancelled run could not be marked as such: %s", error)


class _Watch:
    """Looks at the state of flow runs until it is stopped."""

    def __init__(self, runs: list[UUID]) -> None:
        self.runs = runs
        self.cancelled = False
        self._over = threading.Event()
        self._since: float | None = None

    def start(self) -> None:
        """Look from a thread; the settings in force come along."""
        threading.Thread(target=contextvars.copy_context().run, args=(self._look_on,), daemon=True).start()

    def stop(self) -> None:
        """No signal is sent from here on."""
        self._over.set()

    def _look_on(self) -> None:
        while not self._over.wait(LOOK):
            if not self.sees_it():
                self._since = None
                continue
            self._since = self._since or time.monotonic()
            if time.monotonic() - self._since >= PATIENCE:
                self.cancelled = True
                os.kill(os.getpid(), signal.SIGTERM)  # Prefect makes it an exception in the main thread
                return

    def sees_it(self) -> bool:
        """Whether one of the runs is cancelled now."""
        try:
            with get_client(sync_client=True) as client:
                states = [client.read_flow_run(run).state for run in self.runs]
        except Exception:  # the server may be away for a moment
            return False
        return any(state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED) for state in states)
