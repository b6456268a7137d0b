"""The seven stages as Prefect tasks, each with the policy that fits it.

Retries only where running again can help: fetch when something outside did not answer, training when it was killed or stopped
(it goes on from its checkpoint). Bad data stays bad, so nothing else is retried. The time limits end a run that hangs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger
from prefect.runtime import task_run as current_task_run
from prefect.states import Completed

from dagobert.events import duration
from tasks import labels, running
from tasks.errors import SourceUnavailableError, StageInterruptedError
from tasks.workplace import Workplace

HOUR = 3600.0


@dataclass(frozen=True)
class Policy:
    """How a stage is treated.

    Attributes:
        timeout: seconds after which its process group is ended.
        retry_on: errors after which running again can help.
        delays: seconds before each retry; as many retries as delays.
        tags: shown on the task run; `prefect concurrency-limit` and filters in the UI go by them.
    """

    timeout: float
    retry_on: tuple[type[Exception], ...] = ()
    delays: tuple[float, ...] = ()
    tags: tuple[str, ...] = ()


POLICIES = {
    "fetch": Policy(timeout=6 * HOUR, retry_on=(SourceUnavailableError,), delays=(10, 60, 300), tags=("io",)),
    "clean": Policy(timeout=6 * HOUR, tags=("data",)),
    "encode-labels": Policy(timeout=HOUR, tags=("data",)),
    "tokenize": Policy(timeout=6 * HOUR, tags=("data",)),
    "split": Policy(timeout=HOUR, tags=("data",)),
    "train": Policy(timeout=168 * HOUR, retry_on=(StageInterruptedError,), delays=(1, 10, 60), tags=("gpu",)),
    "evaluate": Policy(timeout=12 * HOUR, tags=("gpu",)),
}
STATE_NAMES = {"ran": "Completed", "restored": "Restored", "up to date": "UpToDate"}

StageTask = Task[[Workplace], State[dict[str, Any]]]


def run_name(stage: str) -> Callable[[], str]:
    """Names a task run after what it runs: `train · lr 1e-4 · seed 42`."""

    def name() -> str:
        place: Workplace = current_task_run.parameters["place"]
        return labels.run_label(stage, place.root)

    return name


def may_help_to_retry(policy: Policy) -> Callable[[Any, TaskRun, State[Any]], bool]:
    """Prefect's retry condition: whether the error is one of the policy's."""

    def condition(task: Any, run: TaskRun, state: State[Any]) -> bool:
        return isinstance(state.data, policy.retry_on)

    return condition


def stage_task(stage: str) -> StageTask:
    """A Prefect task that has DVC bring one stage up to date."""
    policy = POLICIES[stage]

    def run(place: Workplace) -> State[dict[str, Any]]:
        logger = get_run_logger()
        assert isinstance(logger, logging.Logger | logging.LoggerAdapter)
        summary = running.run_stage(place, stage, timeout=policy.timeout, logger=logger)
        message = f"{summary['how']}, {duration(summary['seconds'])}"
        return Completed(name=STATE_NAMES[summary["how"]], message=message, data=summary)

    return Task(
        run,
        name=stage,
        description=f"Has DVC bring the stage `{stage}` up to date.",
        task_run_name=run_name(stage),
        tags=list(policy.tags),
        retries=len(policy.delays),
        retry_delay_seconds=list(policy.delays),
        retry_condition_fn=may_help_to_retry(policy),
        cache_policy=NO_CACHE,
        persist_result=False,
    )


fetch = stage_task("fetch")
clean = stage_task("clean")
encode_labels = stage_task("encode-labels")
tokenize = stage_task("tokenize")
split = stage_task("split")
train = stage_task("train")
evaluate = stage_task("evaluate")
