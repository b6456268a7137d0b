"""Tells living flow runs from dead ones on this machine.

A flow that is killed (-9) cannot report, and when its worker died with it, or it never had one (it was started from a shell, or
is a trial of a sweep), nobody does: the run would be "Running" for ever, and hold its place in a concurrency limit. Each run
holds an OS lock on a file of its own, which the kernel gives back however it ends. A file without a holder is a run that was
killed.
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
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

SETTLED = timedelta(seconds=30)  # a state younger than this may be about to change
UNSTARTED = timedelta(minutes=5)  # a run that a worker took and did not start by then never will
GONE = "The process of this run is gone: it was killed, or the machine went down. Run it again to go on."
_UNFINISHED = (StateType.RUNNING, StateType.CANCELLING, StateType.PENDING)


def _directory(origin: Path) -> Path:
    return origin / ".dagobert" / "runs"


@contextmanager
def alive(origin: Path, run: str | UUID | None) -> Iterator[None]:
    """Show that this flow run lives while the block runs.

    The file is locked before it gets its name, so that no look ever finds it without its holder or keeps the holder from it.
    """
    if run is None:
        yield
        return
    path = _directory(origin) / str(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    unnamed = path.with_name(f".{run}.{os.getpid()}")
    fd = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        unnamed.replace(path)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def is_alive(origin: Path, run: str | UUID) -> bool | None:
    """Whether the process of a flow run lives; None when it left no trace here, or tidied up after itself."""
    try:
        fd = os.open(_directory(origin) / str(run), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False if os.fstat(fd).st_nlink else None  # it may have ended well since it was opened
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def bury_dead_runs(client: SyncPrefectClient, origin: Path, pool: str, now: datetime | None = None) -> list[str]:
    """Give runs of this repository whose process is gone their last state; returns their names."""
    now = now or datetime.now(UTC)
    dead = [*_killed(origin), *_lost(client, origin, pool, now)]
    return [name for run in dict.fromkeys(dead) if (name := _bury(client, origin, run, now)) is not None]


def bury_killed_runs(client: SyncPrefectClient, origin: Path) -> list[str]:
    """The same for runs that began here, which is all a later run can tell; asks the server only when there are any."""
    now = datetime.now(UTC)
    return [name for run in _killed(origin) if (name := _bury(client, origin, run, now)) is not None]


def _killed(origin: Path) -> Iterator[UUID]:
    """Runs whose file nobody holds, however they were started."""
    for path in sorted(_directory(origin).glob("*-*-*-*-*")):
        if not path.name.startswith(".") and is_alive(origin, path.name) is False:
            yield UUID(path.name)


def _lost(client: SyncPrefectClient, origin: Path, pool: str, now: datetime) -> Iterator[UUID]:
    """Runs of a work pool whose process was gone before it could make its file."""
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": list(_UNFINISHED)}}}),
        work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [pool]}}),
    )
    here = bool(runs) and {worker.name for worker in client.read_workers_for_work_pool(pool)} == {socket.gethostname()}
    for run in runs:
        if is_alive(origin, run.id) is None and _never_began(run, here, now):
            yield run.id


def _never_began(run: FlowRun, here: bool, now: datetime) -> bool:
    """By the process id that its worker stored, which says nothing when the pool has workers on other machines (`here`)."""
    assert run.state is not None
    age = now - run.state.timestamp
    pid = run.infrastructure_pid or ""
    if here and pid.isdigit():
        return age > SETTLED and not _exists(int(pid))
    return run.state.type == StateType.PENDING and age > UNSTARTED


def _bury(client: SyncPrefectClient, origin: Path, run: UUID, now: datetime) -> str | None:
    """Give a dead run and what ran in it their last states; its name, or None when there is nothing to do (yet).

    The state is read again and nothing is forced: a run that ended meanwhile keeps the end it reported.
    """
    name = None
    try:
        found = client.read_flow_run(run)
        state = found.state
        if state is not None and not state.is_final():
            if state.type not in _UNFINISHED or now - state.timestamp < SETTLED:
                return None  # it waits to be run again, or just began
            last = Cancelled if state.type == StateType.CANCELLING else Crashed
            if client.set_flow_run_state(run, last(message=GONE)).status == SetStateStatus.ACCEPT:
                name = found.name
        _bury_tasks(client, run)
    except ObjectNotFound:  # of another server, or deleted
        pass
    (_directory(origin) / str(run)).unlink(missing_ok=True)
    return name


def _bury_tasks(client: SyncPrefectClient, run: UUID) -> None:
    """The tasks of a dead run crashed with it."""
    unfinished = client.read_task_runs(
        flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": [run]}}),
        task_run_filter=TaskRunFilter.model_validate({"state": {"type": {"any_": list(_UNFINISHED)}}}),
    )
    for task in unfinished:
        client.set_task_run_state(task.id, Crashed(message=GONE))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
