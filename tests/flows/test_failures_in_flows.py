"""What fails under a flow: Prefect has a terminal state with a plain reason, nothing is left, and the next run is fine."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks import dvc
from tests.flows.one_stage import one_stage
from tests.flows.processes import of_project, stage_process, wait_until_none
from tests.flows.projects import environment, set_fault, status
from tests.flows.servers import Server, ask, free_port

HOLD_LOCK = """
import sys, time
from dvc.lock import make_lock
lock = make_lock(".dvc/tmp/lock", tmp_dir=".dvc/tmp")
lock.lock()
print("held", flush=True)
time.sleep(float(sys.argv[1]))
"""


def run(stage: str = "fetch") -> Any:
    """The state that Prefect has of a flow of one stage."""
    from prefect.client.orchestration import get_client

    ended = one_stage(stage, return_state=True)
    with get_client(sync_client=True) as client:
        return client.read_flow_run(ended.state_details.flow_run_id).state


def test_a_time_limit_ends_the_run_and_the_next_is_fine(in_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.stages import POLICIES

    policy = POLICIES["fetch"]
    monkeypatch.setitem(POLICIES, "fetch", replace(policy, timeout=3))
    set_fault(in_project, "fetch", seconds=60)
    state = run()
    assert state.is_failed()
    assert "fetch was ended because it took longer than 3.0 s" in state.message
    assert of_project(in_project) == []
    monkeypatch.setitem(POLICIES, "fetch", policy)
    assert run().is_completed()


def test_a_lock_held_by_somebody_else_is_waited_for(in_project: Path) -> None:
    command = [sys.executable, "-c", HOLD_LOCK, "8"]
    with subprocess.Popen(command, cwd=in_project, env=environment(), stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        started = time.monotonic()
        assert run().is_completed()
        assert time.monotonic() - started > 5
    assert holder.returncode == 0


def test_a_damaged_dvc_lock_is_named_and_the_next_run_is_fine(in_project: Path) -> None:
    path = in_project / "dvc.lock"
    path.write_text("schema: '2.0'\nstages: [")
    state = run()
    assert state.is_failed()
    assert path.name in state.message
    path.unlink()
    assert run().is_completed()
    assert "fetch" not in status(in_project)


@pytest.mark.parametrize("left", ["", '{"read": {"a'])
def test_a_dvc_killed_while_it_wrote_its_lock_file_stops_nobody(in_project: Path, left: str) -> None:
    path = in_project / ".dvc/tmp/rwlock"
    path.parent.mkdir(exist_ok=True)
    path.write_text(left)
    with path.with_name("rwlock.lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # as a DVC that is writing it
        assert not dvc.mend_locks(in_project)
        assert path.exists()
    assert run().is_completed()
    assert "fetch" not in status(in_project)
    assert not dvc.mend_locks(in_project)


def test_a_server_that_cannot_be_reached_is_named_before_anything_runs(project: Path, prefect_server: Server) -> None:
    values = {**environment(), **prefect_server.environment(), "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}
    done = subprocess.run(
        [sys.executable, "-m", "flows.finetune"], cwd=project, env=values, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert f"The Prefect server at {values['PREFECT_API_URL']} does not answer. Start it (`make serve`)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not os.path.lexists(project / "dvc.lock")
    wait_until_none(project)


WITH_PATIENCE = """
import sys
from tasks import cancelling
cancelling.LOOK, cancelling.PATIENCE = 0.5, float(sys.argv[1])
from tests.flows.one_stage import one_stage
one_stage("fetch")
"""


@pytest.mark.parametrize(("patience", "seconds", "ends"), [(1, 100, {"CANCELLED"}), (100, 8, {"CANCELLED", "COMPLETED"})])
def test_a_cancelled_run_without_a_worker_ends_by_itself(
    project: Path, prefect_server: Server, patience: int, seconds: int, ends: set[str]
) -> None:
    set_fault(project, "fetch", seconds=seconds)
    values = {**environment(), **prefect_server.environment()}
    flow = subprocess.Popen(
        [sys.executable, "-c", WITH_PATIENCE, str(patience)], cwd=project, env=values, start_new_session=True
    )
    stage_process(project, "fetch")
    (run,) = (path.name for path in (project / ".dagobert" / "runs").iterdir())
    ask(prefect_server, f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    flow.wait(timeout=60)
    wait_until_none(project)
    assert ask(prefect_server, f"flow_runs/{run}")["state_type"] in ends
