"""The installed versions together make a server that starts and whose schedules fire."""

from __future__ import annotations

import time

from tests.flows.servers import Server, ask


def test_the_server_of_the_installed_versions_starts(prefect_server: Server) -> None:
    assert ask(prefect_server, "admin/version").startswith("3.")


def test_a_schedule_makes_runs(prefect_server: Server) -> None:
    # With sqlalchemy 2.1 the server of prefect 3.8.8 starts, takes schedules and never makes a run of one.
    flow = ask(prefect_server, "flows/", {"name": "scheduled"})["id"]
    schedule = {"active": True, "schedule": {"cron": "0 1 * * *", "timezone": "UTC"}}
    ask(prefect_server, "deployments/", {"name": "scheduled", "flow_id": flow, "schedules": [schedule]})
    deadline = time.monotonic() + 120
    wanted = {"flows": {"name": {"any_": ["scheduled"]}}}
    while not (runs := ask(prefect_server, "flow_runs/filter", wanted)):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert runs[0]["state"]["type"] == "SCHEDULED"
