"""The model in service: what `dagobert promote` put in the stage `production`, as tags of the repository.

Its gate compares on the same test rows; after new data those differ, and then the comparison on rows neither model has seen
decides instead. The gate's other conditions (the record, the bytes, the data contract, the calibration) are never overruled.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed
from ruamel.yaml import YAML

from tasks import dvc, markdown, running
from tasks.errors import StageError
from tasks.scoring import PRODUCTION, in_service, run_command, verdict
from tasks.stages import POLICIES, may_help_to_retry
from tasks.workplace import Workplace


@task(
    name="refresh",
    description="Gets the data from its source again; the same bytes change nothing.",
    retries=len(POLICIES["fetch"].delays),
    retry_delay_seconds=list(POLICIES["fetch"].delays),
    retry_condition_fn=may_help_to_retry(POLICIES["fetch"]),
    cache_policy=NO_CACHE,
    persist_result=False,
)
def refresh(place: Workplace) -> dict[str, Any]:
    """Have DVC run `fetch` although its inputs are unchanged.

    Raises:
        StageError: in the stage's own words.
    """
    return running.run_stage(place, "fetch", timeout=POLICIES["fetch"].timeout, logger=get_run_logger(), force=True)


def same_rows_as_in_service(place: Workplace) -> bool:
    """Whether the clean rows are those the model in service was made from."""
    incumbent = in_service(place.origin)
    if incumbent is None:
        return False
    lock = YAML(typ="safe", pure=True).load(dvc.git(place.origin, "show", f"{incumbent}:dvc.lock"))
    outs = {out["path"]: out.get("md5") for out in lock["stages"].get("clean", {}).get("outs", [])}
    rows = "data/clean.parquet"
    return rows in outs and outs[rows] == dvc.locked_outs(place.root, "clean").get(rows)


def nothing_new() -> State[dict[str, Any]]:
    """The end of a run that found the same data."""
    return Completed(
        name="NothingNew", message="the source has nothing new; the model in service stays", data={"promoted": False}
    )


def ask_gate(place: Workplace, experiment: str, reason: str) -> list[str]:
    """Promote through the gate; what it has against it, empty when the model is in production now."""
    at_home = replace(place, root=place.origin)
    command, logger = ["dagobert", "promote", experiment, "--stage", PRODUCTION], get_run_logger()
    try:
        run_command(command, at_home, 600, logger)
    except StageError as error:
        refused = re.findall(r"^  (\w+): (.*)$", str(error), re.MULTILINE)
        if [name for name, _ in refused] != ["better"]:
            return [f"{name}: {text}" for name, text in refused] or [str(error)]
        run_command([*command, "--because", reason], at_home, 600, logger)
    return []


@task(name="promote", cache_policy=NO_CACHE, persist_result=False, task_run_name="promote or keep")
def promote(place: Workplace, experiment: str, found: dict[str, Any]) -> State[dict[str, Any]]:
    """Put the experiment in production when it is better by more than chance and the gate has nothing else against it."""
    better, reason = verdict(found)
    refused = ask_gate(place, experiment, reason) if better else []
    promoted = better and not refused
    reason = "; ".join([reason, *refused])
    message = (
        f"{experiment} {'is now in service' if promoted else 'is kept as an experiment, the model in service stays'}: {reason}"
    )
    get_run_logger().info("%s", message)
    rows = [(key.replace("_", " "), value) for key, value in found.items() if value is not None]
    text = (
        f"# {'Promoted' if promoted else 'Kept'}\n\n{markdown.text(experiment)}: {reason}\n\n{markdown.table(['', ''], rows)}"
    )
    create_markdown_artifact(markdown=text, key="promotion", description=message)
    return Completed(name="Promoted" if promoted else "Kept", message=message, data={"promoted": promoted, "reason": reason})
