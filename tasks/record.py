"""Saves what a run made as a DVC experiment of the repository it belongs to, under the name of the flow run.

`dvc exp save` commits whatever lies on the disk and can poison the run cache with outputs of other parameters, so nothing is
saved unless `dvc status` is clean. The experiment is made in the clone and its one ref pushed to the repository.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from dagobert.repository import Repository
from tasks import clones, dvc, reports
from tasks.errors import NotCleanError, WorkplaceError
from tasks.running import Logger
from tasks.workplace import Workplace

REPORTS_KEPT = 50


def _may_help_to_retry(task: Any, run: TaskRun, state: State[Any]) -> bool:
    """A push can meet another run's; a status that is not clean stays so."""
    return not isinstance(state.data, NotCleanError)


@task(
    name="record",
    description="Saves the run as a DVC experiment named after it.",
    task_run_name="record",
    retries=2,
    retry_delay_seconds=[2, 10],
    retry_condition_fn=_may_help_to_retry,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def record(place: Workplace) -> State[dict[str, Any]]:
    """Record a run that worked in a clone; one in place is the user's to commit."""
    if place.in_place:
        return Completed(name="InPlace", message="worked in place: commit dvc.lock to keep it", data={"experiment": None})
    name = save_experiment(place, str(flow_run.name))
    logger = get_run_logger()
    logger.info("Saved as experiment %s. Get it back with: dvc exp apply %s", name, name)
    show_experiment(name, place, logger)
    return Completed(message=f"experiment {name}", data={"experiment": name, "revision": place.revision})


def conclusion(recorded: State[dict[str, Any]]) -> State[dict[str, Any]]:
    """The last state of a run that ends with its record: it says under which name."""
    return Completed(message=recorded.message, data=recorded.result())


def show_experiment(name: str, place: Workplace, logger: Logger) -> None:
    """An artifact with the experiment's name and how to get it back; its HTML report outlives the clone in the repository."""
    try:
        report = keep_report(name, place)
        create_markdown_artifact(markdown=reports.experiment_report(name, place, report), key="experiment", description=name)
    except Exception as error:
        logger.warning("The experiment is recorded but not shown: %s", error)


def keep_report(name: str, place: Workplace) -> Path | None:
    """Copy the clone's report.html beside those of the runs before; the newest `REPORTS_KEPT` stay."""
    source = place.root / "reports" / "report.html"
    if not source.is_file():
        return None
    directory = place.origin / ".dagobert" / "reports"
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"{name}.html"
    shutil.copyfile(source, target)
    for old in sorted(directory.glob("*.html"), key=lambda path: path.stat().st_mtime, reverse=True)[REPORTS_KEPT:]:
        old.unlink(missing_ok=True)
    return target


def save_experiment(place: Workplace, wanted: str) -> str:
    """Save the clone's state and push it to the repository it came from; gives the name it got.

    Raises:
        NotCleanError: something is out of date, so that saving would record outputs that do not belong to their inputs.
    """
    if changed := dvc.status(place.root):
        raise NotCleanError(
            f"not recorded: dvc status is not clean after the last stage: {json.dumps(changed, ensure_ascii=False)[:2000]}"
        )
    name = free_name(place, wanted)
    untracked = dvc.git(place.root, "ls-files", "--others", "--exclude-standard").splitlines()
    included = [argument for path in untracked for argument in ("--include-untracked", path)]
    message = Repository(place.root).run_message(name, f"flow run {wanted}")
    dvc.query(place.root, "exp", "save", "--force", "--name", name, "--message", message, *included)
    (ref,) = clones.experiment_refs(place.root, name)
    dvc.git(place.root, "push", "--quiet", str(place.origin), f"{ref}:{ref}")
    return name


def figures(origin: Path, outcome: State[Any]) -> dict[str, Any]:
    """The row of a finished run in a table: its experiment and figures, or why there are none."""
    if not outcome.is_completed():
        return {"experiment": None, "outcome": f"{outcome.name}: {outcome.message}"[:200]}
    name = outcome.result()["experiment"]
    (ref,) = clones.experiment_refs(origin, name)
    metrics = json.loads(dvc.git(origin, "show", f"{ref}:reports/metrics.json"))
    row: dict[str, Any] = {"experiment": name, "outcome": "recorded"}
    for side in ("validation", "test"):
        for figure in ("accuracy", "macro_f1", "loss", "log_loss"):
            if isinstance(value := metrics.get(side, {}).get(figure), int | float):
                row[f"{side} {figure.replace('_', ' ')}"] = round(value, 4)
    return row


def free_name(place: Workplace, wanted: str) -> str:
    """`wanted` as git allows it, with a number when an experiment of the repository has that name."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", wanted).strip("-") or "run"
    for number in range(1, 10_000):
        name = safe if number == 1 else f"{safe}-{number}"
        if not clones.experiment_refs(place.origin, name):
            return name
    raise WorkplaceError(f"{place.origin}: too many experiments are called {safe}.")
