"""What `make serve` runs, killed (-9) or cancelled while a run trains: one kill each, `make chaos-flow` does many.

The tests share one server; the run of each is also the next run after the kill before.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.clones import experiment_refs
from tasks.forms import OFFERED
from tasks.values import write_values
from tests.chaos_flow import served
from tests.flows.processes import stage_process
from tests.flows.projects import environment, sh


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Served]:
    with served.serving(tmp_path_factory.mktemp("served"), seconds=5) as running:
        yield running


@pytest.mark.parametrize(
    ("victim", "ends"),
    [("cancel", "CANCELLED"), ("flow", "CRASHED"), ("worker", "COMPLETED"), ("server", "COMPLETED")],
)
def test_a_kill_has_a_terminal_state_and_leaves_nothing(place: served.Served, victim: str, ends: str) -> None:
    run = place.start_run(seed=ord(victim[0]))
    stage_process(place.clones, "train", timeout=120)
    served.strike(place, victim, run)
    assert place.wait_for_end(run) == ends
    assert served.left_running(place) is None
    assert not list(place.clones.rglob("*.partial"))


def commit_elsewhere(root: Path, values: dict[str, Any]) -> None:
    """A branch `other` with other parameters; what is checked out stays."""
    other = root.parent / "other"
    sh(root, "git", "worktree", "add", "-q", "-b", "other", str(other))
    write_values(other / "params.yaml", values)
    sh(other, "git", "commit", "-qam", "Other parameters")
    sh(root, "git", "worktree", "remove", str(other))


def shown(place: served.Served) -> dict[str, Any]:
    """The form of `finetune` as the UI would send it back untouched."""
    forms = place.ask("deployments/name/finetune/finetune")["parameter_openapi_schema"]["definitions"]
    return {
        section: {name: field["default"] for name, field in forms[f"{section.capitalize()}Form"]["properties"].items()}
        for section in OFFERED
    }


def test_what_was_not_changed_in_the_form_is_as_the_revision_has_it(place: served.Served) -> None:
    commit_elsewhere(place.root, {"train": {"learning_rate": 5e-4, "weight_decay": 0.5}})
    sent = shown(place)
    assert sent["train"]["learning_rate"] == 1e-4
    sent["train"]["weight_decay"] = 0.25
    deployment = place.ask("deployments/name/finetune/finetune")["id"]
    body = {"parameters": {"parameters": sent, "revision": "other"}}
    run = place.ask(f"deployments/{deployment}/create_flow_run", body)
    assert place.wait_for_end(run["id"]) == "COMPLETED"  # the next run after the kills, too
    (ref,) = experiment_refs(place.root, run["name"])
    params = YAML(typ="safe", pure=True).load(sh(place.root, "git", "show", f"{ref}:params.yaml"))
    assert (params["train"]["learning_rate"], params["train"]["weight_decay"]) == (5e-4, 0.25)


def test_the_form_shows_what_is_committed(place: served.Served) -> None:
    write_values(place.root / "params.yaml", {"train": {"learning_rate": 2e-4}})
    sh(place.root, "git", "commit", "-qam", "Another learning rate")
    deadline = time.monotonic() + 240
    while shown(place)["train"]["learning_rate"] != 2e-4:
        assert time.monotonic() < deadline
        time.sleep(1)


DEPLOY_AGAIN = "import os; from pathlib import Path; from flows import serve; serve.deploy(Path.cwd(), dict(os.environ))"


def schedules(place: served.Served) -> dict[str | None, Any]:
    found = place.ask("deployments/name/retrain/retrain")["schedules"]
    return {schedule["slug"]: (schedule["id"], schedule["schedule"].get("cron"), schedule["active"]) for schedule in found}


def test_schedules_that_a_person_added_or_edited_stay_when_it_is_served_again(place: served.Served) -> None:
    deployment = place.ask("deployments/name/retrain/retrain")
    (nightly,) = deployment["schedules"]
    assert (nightly["slug"], nightly["schedule"]["cron"], nightly["active"]) == ("nightly", "30 2 * * *", False)
    path = f"deployments/{deployment['id']}/schedules"
    edited = {"active": True, "schedule": {"cron": "15 4 * * *", "timezone": "UTC"}}
    place.ask(f"{path}/{nightly['id']}", edited, method="PATCH")
    place.ask(path, [{"active": True, "schedule": {"cron": "0 12 * * 0", "timezone": "UTC"}}])  # the UI gives no slug
    before = schedules(place)
    assert before["nightly"][1:] == ("15 4 * * *", True)
    assert len(before) == 2
    values = {**environment(), "PREFECT_API_URL": f"{place.url}/api", "DAGOBERT_ROOT": str(place.root)}
    del values["PYTHONPATH"]
    again = [sys.executable, "-c", DEPLOY_AGAIN]
    weekly = place.ask("deployments/name/finetune/finetune")
    place.ask(f"deployments/{weekly['id']}/schedules/{weekly['schedules'][0]['id']}", method="DELETE")
    subprocess.run(again, cwd=place.root, env=values, check=True, timeout=180)
    assert schedules(place) == before
    (made,) = place.ask("deployments/name/finetune/finetune")["schedules"]
    assert (made["slug"], made["schedule"]["cron"], made["active"]) == ("weekly", "0 1 * * 6", False)
