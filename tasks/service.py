"""The model in service: what `dagobert promote` put in the stage `production`, as tags of the repository.

Its gate compares on the same test rows; after new data those differ, and then the comparison on rows neither model has seen
decides instead. The gate's other conditions (the record, the bytes, the data contract, the calibration of each model on its own
test rows) are never overruled.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
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

ROWS = "data/clean.parquet"
JUDGED = Path(".dagobert/judged.json")  # the candidate that was kept last, and what it was compared with


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


def judged_before(place: Workplace) -> str | None:
    """What became of these very clean rows, where a model of them was judged already; None: they are new.

    A model that was kept, not promoted, would be kept again the next night: the same rows against the same model in service.
    """
    incumbent = in_service(place.origin)
    rows = dvc.locked_outs(place.root, "clean").get(ROWS)
    if incumbent is None or rows is None:
        return None
    lock = YAML(typ="safe", pure=True).load(dvc.git(place.origin, "show", f"{incumbent}:dvc.lock"))
    if rows in [out.get("md5") for out in lock["stages"].get("clean", {}).get("outs", []) if out["path"] == ROWS]:
        return "the model in service was made from the same rows"
    last = _last_judgement(place.origin)
    if (last.get("rows"), last.get("incumbent")) == (rows, incumbent):
        return f"{last.get('experiment')} was made from the same rows and kept on {last.get('when')}: {last.get('reason')}"
    return None


def _last_judgement(origin: Path) -> dict[str, Any]:
    try:
        last = json.loads((origin / JUDGED).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return last if isinstance(last, dict) else {}


def remember(place: Workplace, incumbent: str | None, experiment: str, reason: str) -> None:
    """Write down that these rows were judged against the model in service, for the nights to come."""
    rows = dvc.locked_outs(place.root, "clean").get(ROWS)
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    judgement = {"rows": rows, "incumbent": incumbent, "experiment": experiment, "when": when, "reason": reason}
    path = place.origin / JUDGED
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(judgement, indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)


def nothing_new(known: str) -> State[dict[str, Any]]:
    """The end of a run that found data that was judged before."""
    message = f"the source has nothing new; the model in service stays ({known})"
    return Completed(name="NothingNew", message=message, data={"promoted": False})


def ask_gate(place: Workplace, experiment: str, reason: str) -> list[str]:
    """Promote through the gate; what it has against it, empty when the model is in production now.

    Raises:
        StageError: the command failed for another reason than the gate's conditions.
    """
    at_home = replace(place, root=place.origin)
    command, logger = ["dagobert", "promote", experiment, "--stage", PRODUCTION], get_run_logger()
    try:
        run_command(command, at_home, 600, logger)
    except StageError as error:
        refused = dict(re.findall(r"^  (\w+): (.*)$", str(error), re.MULTILINE))
        if not refused:
            raise
        if list(refused) != ["better"]:
            return [f"{name}: {text}" for name, text in refused.items() if name != "better"]
        run_command([*command, "--because", reason], at_home, 600, logger)
    return []


@task(name="promote", cache_policy=NO_CACHE, persist_result=False, task_run_name="promote or keep")
def promote(place: Workplace, experiment: str, found: dict[str, Any]) -> State[dict[str, Any]]:
    """Put the experiment in production when it is better by more than chance and the gate has nothing else against it."""
    better, why = verdict(found)
    incumbent = in_service(place.origin)
    refused = ask_gate(place, experiment, why) if better else []
    promoted = better and not refused
    reasons = [why, *refused]
    reason = "; ".join(reasons)
    if not promoted:
        remember(place, incumbent, experiment, reason)
    said = "is now in service" if promoted else "is kept as an experiment, the model in service stays"
    get_run_logger().info("%s %s: %s", experiment, said, reason)
    show_judgement(experiment, "Promoted" if promoted else "Kept", reasons, found)
    return Completed(
        name="Promoted" if promoted else "Kept",
        message=f"{experiment} {said}: {reason}",
        data={"promoted": promoted, "reason": reason},
    )


def show_judgement(experiment: str, verdict: str, reasons: list[str], found: dict[str, Any]) -> None:
    """An artifact with the verdict, its reasons and the figures; the reasons hold words of other commands, and are escaped."""
    rows = [(key.replace("_", " "), value) for key, value in found.items() if value is not None]
    shown = [markdown.text(reason, longest=1000) for reason in reasons]
    parts = [f"# {verdict}", markdown.text(experiment), *shown, markdown.table(["", ""], rows)]
    create_markdown_artifact(
        markdown="\n\n".join(parts), key="promotion", description=f"{verdict}: {markdown.text(experiment)}"
    )
