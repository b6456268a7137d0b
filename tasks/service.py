"""The model in service: a branch of the repository that points to its experiment. Promotion moves the branch, nothing else."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed
from ruamel.yaml import YAML

from tasks import clones, dvc, markdown, running
from tasks.scoring import IN_SERVICE, in_service, verdict
from tasks.stages import POLICIES, may_help_to_retry
from tasks.workplace import Workplace


@task(
    name="refresh",
    description="Gets the data from its source again; the same bytes change nothing.",
    tags=["io"],
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
    if not in_service(place.origin):
        return False
    lock = YAML(typ="safe", pure=True).load(dvc.git(place.origin, "show", f"{IN_SERVICE}:dvc.lock"))
    outs = {out["path"]: out.get("md5") for out in lock["stages"].get("clean", {}).get("outs", [])}
    rows = "data/clean.parquet"
    return rows in outs and outs[rows] == dvc.locked_outs(place.root, "clean").get(rows)


def nothing_new() -> State[dict[str, Any]]:
    """The end of a run that found the same data."""
    return Completed(
        name="NothingNew", message="the source has nothing new; the model in service stays", data={"promoted": False}
    )


@task(name="promote", cache_policy=NO_CACHE, persist_result=False, task_run_name="promote or keep")
def promote(place: Workplace, experiment: str, found: dict[str, Any]) -> State[dict[str, Any]]:
    """Move the branch `in-service` to the experiment when it is better by more than chance; say why, or why not."""
    promoted, reason = verdict(found)
    before = in_service(place.origin)
    if promoted:
        (ref,) = clones.experiment_refs(place.origin, experiment)
        dvc.git(place.origin, "update-ref", "-m", f"promote {experiment}", f"refs/heads/{IN_SERVICE}", ref, before or "0" * 40)
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
