"""What is killed (-9) gets its last state, however it was started; what ended well keeps the end it reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tasks import liveness
from tests.flows.processes import stage_process, wait_until_none
from tests.flows.projects import environment, set_fault

POOL = "dagobert"


def bury(project: Path, seconds: float = 60) -> list[str]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return liveness.bury_dead_runs(client, project, POOL, datetime.now(UTC) + timedelta(seconds=seconds))


def state_types(runs: list[UUID]) -> set[str]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return {run.state.type.value for run in map(client.read_flow_run, runs) if run.state}


def trace(project: Path, run: UUID) -> Path:
    path = project / ".dagobert" / "runs" / str(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def task_states(runs: list[UUID]) -> set[str]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": runs}}))
        return {task.state.type.value for task in tasks if task.state}


@pytest.fixture
def run_in() -> Any:
    """Makes a flow run that nobody runs, in a state."""
    from prefect import flow
    from prefect.client.orchestration import get_client

    @flow
    def nothing() -> None: ...

    def make(state: Any) -> UUID:
        with get_client(sync_client=True) as client:
            return UUID(str(client.create_flow_run(nothing, state=state).id))

    return make


def test_a_sweep_that_is_killed_and_its_trial_are_both_marked(
    in_project: Path, prefect_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_fault(in_project, "fetch", seconds=60)
    faults = str(in_project / ".dagobert" / "faults")
    values = {**environment(), **prefect_server.environment(), "FAKE_FAULTS": faults, "DAGOBERT_CLONES": str(tmp_path / "c")}
    sweep = subprocess.Popen(
        [sys.executable, "-m", "flows.sweep", "-S", "seed=[1]"], cwd=in_project, env=values, start_new_session=True
    )
    stage_process(tmp_path / "c", "fetch")
    runs = [UUID(path.name) for path in (in_project / ".dagobert" / "runs").iterdir()]
    assert bury(in_project) == []
    assert "RUNNING" in task_states(runs)
    os.kill(sweep.pid, signal.SIGKILL)
    sweep.wait()
    wait_until_none(tmp_path / "c")
    assert len(bury(in_project)) == len(runs) == 2
    assert state_types(runs) == {"CRASHED"}
    assert "CRASHED" in task_states(runs)
    assert not task_states(runs) & {"RUNNING", "PENDING"}
    assert bury(in_project) == []
    assert list((in_project / ".dagobert" / "runs").iterdir()) == []


def test_the_next_run_marks_what_was_killed_before_it(in_project: Path, run_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import flow
    from prefect.states import Running

    from tasks.setting import at_home

    @flow
    def next_run() -> None:
        with at_home():
            pass

    killed = run_in(Running())
    path = trace(in_project, killed)
    next_run()
    assert state_types([killed]) == {"RUNNING"}  # it may just have been started again
    monkeypatch.setattr(liveness, "SETTLED", timedelta(0))
    next_run()
    assert state_types([killed]) == {"CRASHED"}
    assert not path.exists()


@pytest.mark.parametrize(
    "flow_and_arguments",
    [("reproduce", ("HEAD",)), ("sweep", ()), ("retrain", ()), ("predict", ("dvc.yaml", "b")), ("finetune", ())],
)
def test_every_flow_shows_that_it_lives(
    in_project: Path, flow_and_arguments: tuple[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    shown: list[Any] = []
    monkeypatch.setattr("tasks.setting.alive", lambda origin, run: shown.append((origin, run)) or 1 / 0)
    name, arguments = flow_and_arguments
    state = getattr(importlib.import_module(f"flows.{name}"), name)(*arguments, return_state=True)
    assert state.is_failed()
    assert [origin for origin, _ in shown] == [in_project]


def test_a_run_that_ended_meanwhile_keeps_its_end(in_project: Path, run_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.states import Cancelling, Completed, Running, Scheduled

    ended, cancelling, killed, again, elsewhere = (
        run_in(state) for state in (Completed(), Cancelling(), Running(), Scheduled(), Completed())
    )
    paths = [trace(in_project, run) for run in (ended, cancelling, killed, again)]
    trace(in_project, UUID(int=0))  # of a server that is gone
    monkeypatch.setattr(liveness, "_lost", lambda *_: [elsewhere])  # ended between listing and judging
    assert bury(in_project, 0) == []  # too young to be judged
    assert len(bury(in_project)) == 2
    assert [state_types([run]) for run in (ended, cancelling, killed, again, elsewhere)] == [
        {"COMPLETED"},
        {"CANCELLED"},
        {"CRASHED"},
        {"SCHEDULED"},
        {"COMPLETED"},
    ]
    assert [path.exists() for path in paths] == [False, False, False, True]


def test_a_work_pools_run_whose_process_never_began(in_project: Path) -> None:
    import socket

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="alone", type="process"))
        client.send_worker_heartbeat("alone", socket.gethostname(), 30)
        flow = client.create_flow_from_name("lost")
        deployment = client.create_deployment(flow, "lost", work_pool_name="alone")
        run = client.create_flow_run_from_deployment(deployment)
        from prefect.states import Pending

        client.set_flow_run_state(run.id, Pending())
        client.update_flow_run(run.id, infrastructure_pid="4194304")
        later = datetime.now(UTC) + timedelta(seconds=60)
        assert liveness.bury_dead_runs(client, in_project, "alone", later) == [run.name]
    assert state_types([run.id]) == {"CRASHED"}
