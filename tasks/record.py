"""Saves what a run made as a DVC experiment of the repository it belongs to, under the name of the flow run.

`dvc exp save` commits whatever lies on the disk and can poison the run cache with outputs of other parameters, so nothing is
saved unless `dvc status` is clean. The experiment is made in the clone and its one ref pushed to the repository.
"""

from __future__ import annotations

import json
import re
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from tasks import clones, dvc
from tasks.errors import WorkplaceError
from tasks.workplace import Workplace


@task(
    name="record",
    description="Saves the run as a DVC experiment named after it.",
    task_run_name="record",
    tags=["io"],
    retries=2,
    retry_delay_seconds=[2, 10],
    cache_policy=NO_CACHE,
    persist_result=False,
)
def record(place: Workplace) -> State[dict[str, Any]]:
    """Record a run that worked in a clone; one in place is the user's to commit."""
    if place.in_place:
        return Completed(name="InPlace", message="worked in place: commit dvc.lock to keep it", data={"experiment": None})
    name = save_experiment(place, str(flow_run.name))
    get_run_logger().info("Saved as experiment %s. Get it back with: dvc exp apply %s", name, name)
    return Completed(message=f"experiment {name}", data={"experiment": name, "revision": place.revision})


def save_experiment(place: Workplace, wanted: str) -> str:
    """Save the clone's state and push it to the repository it came from; gives the name it got.

    Raises:
        WorkplaceError: something is out of date, so that saving would record outputs that do not belong to their inputs.
    """
    if changed := dvc.status(place.root):
        raise WorkplaceError(
            f"not recorded: dvc status is not clean after the last stage: {json.dumps(changed, ensure_ascii=False)[:2000]}"
        )
    name = free_name(place, wanted)
    untracked = dvc.git(place.root, "ls-files", "--others", "--exclude-standard").splitlines()
    included = [argument for path in untracked for argument in ("--include-untracked", path)]
    dvc.query(place.root, "exp", "save", "--force", "--name", name, *included)
    (ref,) = clones.experiment_refs(place.root, name)
    dvc.git(place.root, "push", "--quiet", str(place.origin), f"{ref}:{ref}")
    return name


def free_name(place: Workplace, wanted: str) -> str:
    """`wanted` as git allows it, with a number when an experiment of the repository has that name."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", wanted).strip("-") or "run"
    for number in range(1, 10_000):
        name = safe if number == 1 else f"{safe}-{number}"
        if not clones.experiment_refs(place.origin, name):
            return name
    raise WorkplaceError(f"{place.origin}: too many experiments are called {safe}.")
