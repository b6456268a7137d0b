"""The seven stages as Prefect tasks, each with the policy that fits it.

Retries only where running again can help: fetch when something outside did not answer, training when it was killed or stopped
(it goes on from its checkpoint). Bad data stays bad, so nothing else is retried. The time limits end a run that hangs. Tasks
have no tags: Prefect asks the server for a slot of each tag before a task, and fails the run if the server is away just then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from prefect import Task
from prefect.assets import Asset, add_asset_metadata
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.logging import get_run_logger
from prefect.runtime import task_run as current_task_run
from prefect.states import Completed
from prefect.tasks import MaterializingTask

from dagobert.events import duration
from tasks import dvc, labels, limits, running, show
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
        gpu: waits for a slot of the limit `gpu`.
    """

    timeout: float
    retry_on: tuple[type[Exception], ...] = ()
    delays: tuple[float, ...] = ()
    gpu: bool = False


POLICIES = {
    "fetch": Policy(timeout=6 * HOUR, retry_on=(SourceUnavailableError,), delays=(10, 60, 300)),
    "clean": Policy(timeout=6 * HOUR),
    "encode-labels": Policy(timeout=HOUR),
    "tokenize": Policy(timeout=6 * HOUR),
    "split": Policy(timeout=HOUR),
    "train": Policy(timeout=168 * HOUR, retry_on=(StageInterruptedError,), delays=(1, 10, 60), gpu=True),
    "evaluate": Policy(timeout=12 * HOUR, gpu=True),
}
GPU_LIMIT = "gpu"  # a global concurrency limit; made with one slot where there is none
LEASE = 60.0  # seconds after which the slot of a killed run is free again
ASSETS = {"clean": "dagobert://dataset", "tokenize": "dagobert://tokens", "train": "dagobert://model"}
MADE_FROM: dict[str, list[str | Asset]] = {"clean": [], "tokenize": [ASSETS["clean"]], "train": [ASSETS["tokenize"]]}
STATE_NAMES = {
    "ran": "Completed",
    "restored": "Restored",
    "up to date": "Cached",
}  # of "Cached" Prefect takes no asset for made

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
        limits.wait_for_server()
        with gpu_lease() if policy.gpu else nullcontext():
            progress = show.Progress(stage, logger)
            summary = running.run_stage(place, stage, timeout=policy.timeout, logger=logger, on_event=progress)
        describe_assets(stage, place)
        show.show_report(stage, place, logger)
        message = f"{summary['how']}, {duration(summary['seconds'])}"
        return Completed(name=STATE_NAMES[summary["how"]], message=message, data=summary)

    return _kind(stage)(
        run,
        name=stage,
        description=f"Has DVC bring the stage `{stage}` up to date.",
        task_run_name=run_name(stage),
        retries=len(policy.delays),
        retry_delay_seconds=list(policy.delays),
        retry_condition_fn=may_help_to_retry(policy),
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def _kind(stage: str) -> Callable[..., StageTask]:
    """A plain task, or one that Prefect knows to make something: its assets are then shown with their lineage."""
    if stage not in ASSETS:
        return Task
    return partial(MaterializingTask, assets=[ASSETS[stage]], materialized_by="dvc", asset_deps=MADE_FROM[stage])


def describe_assets(stage: str, place: Workplace) -> None:
    """Tell Prefect which version of its asset a stage left: the hashes of `dvc.lock`."""
    if stage in ASSETS:
        add_asset_metadata(ASSETS[stage], dvc.locked_outs(place.root, stage))


def has_gpu() -> bool:
    """Whether this machine has a GPU; where it has none, what only scores need not wait for a training."""
    return any(path for pattern in ("nvidia[0-9]*", "kfd", "dxg") for path in Path("/dev").glob(pattern))


@contextmanager
def gpu_lease() -> Iterator[None]:
    """Queue where the UI shows it. The lock that counts is the stage's own, which `dvc repro` honours too."""
    held = ExitStack()
    while True:
        try:
            limits.ensure(GPU_LIMIT)
            held.enter_context(concurrency(GPU_LIMIT, lease_duration=LEASE, strict=False, raise_on_lease_renewal_failure=False))
            break
        except (ConcurrencySlotAcquisitionError, httpx.TransportError):  # the server is being started again
            limits.wait_for_server()
    try:
        yield
    finally:
        with suppress(httpx.TransportError):  # then the lease runs out by itself
            held.close()


fetch = stage_task("fetch")
clean = stage_task("clean")
encode_labels = stage_task("encode-labels")
tokenize = stage_task("tokenize")
split = stage_task("split")
train = stage_task("train")
evaluate = stage_task("evaluate")
