"""Runs of the `dagobert` command that are no stage: scoring a file, comparing two models."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from dagobert.repository import Repository
from tasks import dvc, processes
from tasks.errors import StageError, StageInterruptedError, WorkplaceError
from tasks.running import Logger
from tasks.stages import gpu_lease, has_gpu
from tasks.workplace import Workplace

MODEL = "models/finetuned"
PRODUCTION = "production"  # the stage of `dagobert promote` whose model is in service
FEWEST = 30  # held-out rows below which a comparison says nothing
CERTAIN = 0.05  # p below which a difference is not chance
HOUR = 3600.0


def run_command(command: list[str], place: Workplace, timeout: float, logger: Logger) -> tuple[str, ...]:
    """Run a command in a workplace, its lines in the log; gives the last of them.

    Raises:
        StageError: it failed; with its own words.
    """
    done = processes.run(
        command,
        place.root,
        dvc.environment(place.root),
        timeout=timeout,
        on_line=lambda line: logger.info("%s", line),
    )
    if done.returncode:
        kind = StageInterruptedError if done.returncode > 128 else StageError
        raise kind("\n".join(done.tail[-20:]) or f"`{' '.join(command)}` ended with exit code {done.returncode}")
    return done.tail


@task(name="score", cache_policy=NO_CACHE, persist_result=False, task_run_name="score · {file}")
def score(place: Workplace, file: str, output: str, text: str) -> State[dict[str, Any]]:
    """Score a file with the workplace's model.

    Raises:
        WorkplaceError: there is no model.
        StageError: in the command's own words.
    """
    if not (place.root / MODEL).is_dir():
        raise WorkplaceError(
            f"{str(place.revision)[:10]} has no {MODEL}: run finetune first, or name an experiment that has one."
        )
    command = ["dagobert", "predict", MODEL, file, "-o", output, "--text", text]
    with gpu_lease() if has_gpu() else nullcontext():
        run_command(command, place, 24 * HOUR, get_run_logger())
    return Completed(message=f"written to {output}", data={"output": output})


@task(name="compare", cache_policy=NO_CACHE, persist_result=False, task_run_name="compare with the model in service")
def compare(place: Workplace) -> dict[str, Any]:
    """Compare the workplace's model with the one in service, on rows neither has seen; empty when none is in service."""
    incumbent = in_service(place.origin)
    if incumbent is None:
        return {}
    state = place.root / ".dagobert"
    seen, result = state / "in-service", state / "comparison.json"
    seen.mkdir(parents=True, exist_ok=True)
    for path, target in ((MODEL, "model"), ("data/clean.parquet", "clean.parquet"), ("data/splits.parquet", "splits.parquet")):
        dvc.query(place.root, "get", str(place.origin), path, "--rev", incumbent, "--out", str(seen / target), "--force")
    command = ["dagobert", "compare", MODEL, str(seen / "model"), "--seen", str(seen), "-o", str(result)]
    with gpu_lease() if has_gpu() else nullcontext():
        run_command(command, place, 12 * HOUR, get_run_logger())
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def in_service(origin: Path) -> str | None:
    """The commit whose model is in service."""
    return Repository(origin).promoted(PRODUCTION)


def verdict(found: dict[str, Any]) -> tuple[bool, str]:
    """Whether to promote, and why: promoted is what is better by more than chance, or the first."""
    if not found:
        return True, "no model was in service"
    n, difference, p = found["n"], found["accuracy_difference"], found["mcnemar_mid_p"]
    figures = (
        f"{difference * 100:+.1f} points on {n:,} held-out rows (p = {p:.3g}): "
        f"{found['candidate_accuracy'] or 0:.1%} against {found['incumbent_accuracy'] or 0:.1%}"
    )
    if n < FEWEST:
        return False, f"only {n:,} held-out rows that neither model has seen, {FEWEST} are needed"
    if p >= CERTAIN:
        return False, f"no more than chance: {figures}"
    return difference > 0, f"{'better' if difference > 0 else 'worse'}: {figures}"
