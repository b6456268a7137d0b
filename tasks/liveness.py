"""Tells living flow runs from dead ones on this machine.

A flow that is killed (-9) cannot report, and when its worker died with it nobody does: the run would be "Running" for ever,
and hold its place in a concurrency limit. Each run holds an OS lock on a file of its own, which the kernel gives back however
it ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelled, Crashed

SETTLED = timedelta(seconds=30)  # a state younger than this may be about to change
UNSTARTED = timedelta(minutes=5)  # a run that a worker took and did not start by then never will


def _directory(origin: Path) -> Path:
    return origin / ".dagobert" / "runs"


@contextmanager
def alive(origin: Path, run: str | UUID | None) -> Iterator[None]:
    """Show that this flow run lives while the block runs."""
    if run is None:
        yield
        return
    path = _directory(origin) / str(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def is_alive(origin: Path, run: str | UUID) -> bool | None:
    """Whether the process of a flow run lives; None when it has left no trace here."""
    try:
        fd = os.open(_directory(origin) / str(run), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def bury_dead_runs(client: SyncPrefectClient, origin: Path, pool: str, now: datetime | None = None) -> list[str]:
    """Give runs of a work pool whose process is gone their last state; returns their names."""
    kinds = [StateType.RUNNING, StateType.CANCELLING, StateType.PENDING]
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": kinds}}}),
        work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [pool]}}),
    )
    dead = [run for run in runs if _is_dead(run, origin, now or datetime.now(UTC))]
    for run in dead:
        cancelled = run.state is not None and run.state.type == StateType.CANCELLING
        message = "The process of this run is gone: it was killed, or the machine went down. Run it again to go on."
        client.set_flow_run_state(run.id, Cancelled(message=message) if cancelled else Crashed(message=message), force=True)
        (_directory(origin) / str(run.id)).unlink(missing_ok=True)
    return [run.name for run in dead]


def _is_dead(run: FlowRun, origin: Path, now: datetime) -> bool:
    """By its lock; else by the process its worker started, if that was on this machine. Runs of other machines are let be."""
    assert run.state is not None
    age = now - run.state.timestamp
    living = is_alive(origin, run.id)
    if living is not None:
        return not living
    host, _, pid = (run.infrastructure_pid or "").rpartition(":")
    if not host:
        return run.state.type == StateType.PENDING and age > UNSTARTED
    return host == socket.gethostname() and pid.isdigit() and age > SETTLED and not _exists(int(pid))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
