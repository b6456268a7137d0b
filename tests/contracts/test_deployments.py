"""prefect.yaml and the flows agree: what a deployment or a schedule sends is what its flow takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.schedules import construct_schedule
from prefect.flows import load_flow_from_entrypoint
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOYMENTS: dict[str, dict[str, Any]] = {
    deployment["name"]: deployment
    for deployment in YAML(typ="safe", pure=True).load((REPOSITORY / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
}
TIMES = ("cron", "interval", "timezone")


def flow_of(name: str) -> Flow[..., Any]:
    return load_flow_from_entrypoint(str(REPOSITORY / DEPLOYMENTS[name]["entrypoint"]))


def schedules(name: str) -> list[dict[str, Any]]:
    return DEPLOYMENTS[name]["schedules"] or []  # null clears those of an earlier deployment, an empty list would keep them


def sent(name: str, schedule: dict[str, Any]) -> dict[str, Any]:
    """What Prefect gives a scheduled run."""
    return {**DEPLOYMENTS[name].get("parameters", {}), **schedule.get("parameters", {})}


def test_there_are_these_five() -> None:
    assert set(DEPLOYMENTS) == {"finetune", "retrain", "predict", "sweep", "reproduce"}
    for name, deployment in DEPLOYMENTS.items():
        assert flow_of(name).name == name
        assert deployment["work_pool"] == {"name": "dagobert"}
        assert deployment["schedules"] != []


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_schedule_sends_what_its_flow_takes_and_is_off_at_first(name: str) -> None:
    for schedule in schedules(name):
        times = {key: value for key, value in schedule.items() if key in TIMES}
        rest = {key: value for key, value in schedule.items() if key not in TIMES}
        made = DeploymentScheduleCreate.model_validate({"schedule": construct_schedule(**times), **rest})
        assert made.slug
        assert made.active is False
        flow_of(name).validate_parameters(sent(name, schedule))  # names what is missing, unknown or out of range


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployments_own_parameters_are_its_flows(name: str) -> None:
    needed = {"predict": {"file": "in.csv", "output": "out.csv"}}.get(name, {})
    flow_of(name).validate_parameters({**needed, **DEPLOYMENTS[name].get("parameters", {})})


def test_a_scheduled_sweep_has_something_to_try() -> None:
    from tasks.trials import trials

    for schedule in schedules("sweep"):
        values = flow_of("sweep").validate_parameters(sent("sweep", schedule))["values"]
        assert len(trials(values)) > 1


def test_the_schedules_and_limits_that_are_promised() -> None:
    assert [(schedule["cron"], schedule["slug"]) for schedule in schedules("retrain")] == [("30 2 * * *", "nightly")]
    assert [schedule["interval"] for schedule in schedules("sweep")] == [7 * 24 * 3600]
    limits = {
        name: ConcurrencyLimitConfig.model_validate(deployment["concurrency_limit"])
        for name, deployment in DEPLOYMENTS.items()
        if "concurrency_limit" in deployment
    }
    assert {name: limit.limit for name, limit in limits.items()} == {"finetune": 2, "retrain": 1, "sweep": 1, "reproduce": 1}
    assert {limit.collision_strategy.value for limit in limits.values()} == {"ENQUEUE"}
