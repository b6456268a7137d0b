"""The policies: what is retried, and what waits for a slot of the GPU."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import Task

from tasks import reproduction, running, scoring, stages
from tasks.errors import SourceUnavailableError, StageError, StageInterruptedError, StageTimeoutError
from tasks.processes import Finished
from tasks.workplace import Workplace


def ended(code: int) -> Finished:
    return Finished(255, (f"ERROR: failed to reproduce 'x': failed to run: dagobert x, exited with {code}",), 1.0, False)


FAILURES: dict[str, tuple[Finished, str | None]] = {
    "bad data": (ended(2), "LabelError: a.csv:3: label 'x'"),
    "missing file": (ended(2), "SourceError: a.csv: no such file"),
    "network": (ended(2), "SourceError: https://x: the network is unreachable"),
    "disk full": (ended(1), "OSError: [Errno 28] No space left on device"),
    "asked to stop": (ended(75), None),
    "killed": (ended(-9), None),
    "out of memory": (ended(137), None),
    "DVC killed": (Finished(137, (), 1.0, False), None),
    "took too long": (Finished(143, (), 1.0, True), None),
    "a bug": (ended(1), "ZeroDivisionError: division by zero"),
}
HELPS = {"fetch": {"network"}, "train": {"asked to stop", "killed", "out of memory", "DVC killed"}}


@pytest.mark.parametrize("stage", stages.POLICIES)
@pytest.mark.parametrize("what", FAILURES)
def test_only_what_may_help_is_tried_again(stage: str, what: str) -> None:
    finished, error = FAILURES[what]
    state: Any = SimpleNamespace(data=running.failure(stage, finished, error, timeout=1))
    task = getattr(stages, stage.replace("-", "_"))
    again = bool(task.retries) and task.retry_condition_fn(None, None, state)
    assert again is (what in HELPS.get(stage, set()))


def test_retries_wait_longer_each_time() -> None:
    for stage, policy in stages.POLICIES.items():
        assert list(policy.delays) == sorted(policy.delays)
        assert bool(policy.delays) == bool(policy.retry_on) == (stage in HELPS)
        assert stages.stage_task(stage).retries == len(policy.delays)
    assert issubclass(SourceUnavailableError, StageError)
    assert not issubclass(StageTimeoutError, StageInterruptedError)


def test_no_task_has_tags() -> None:
    # Prefect asks the server for a slot of each tag before a task, and fails the run if the server is away just then.
    modules = [import_module(f"tasks.{path.stem}") for path in Path(stages.__file__).parent.glob("*.py")]
    tasks = [value for module in modules for value in vars(module).values() if isinstance(value, Task)]
    assert {task.name for task in tasks} >= {*stages.POLICIES, "record", "score", "compare", "promote", "refresh", "reproduce"}
    assert not any(task.tags for task in tasks)


@pytest.fixture
def lease(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened, in order, with Prefect's limit replaced by notes of it."""
    happened: list[str] = []

    @contextmanager
    def concurrency(name: str, **_: object) -> Iterator[None]:
        happened.append(f"take {name}")
        yield
        happened.append(f"give {name}")

    monkeypatch.setattr(stages, "concurrency", concurrency)
    monkeypatch.setattr(stages.limits, "ensure", lambda name: None)
    monkeypatch.setattr(stages.limits, "wait_for_server", lambda: None)
    for module in (stages, scoring, reproduction):
        monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("tests.stages"))
    return happened


HELD = ["take gpu", "run", "give gpu"]


@pytest.mark.parametrize("stage", stages.POLICIES)
def test_training_and_evaluating_hold_a_slot_of_the_gpu(
    stage: str, lease: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_stage(*_: object, **__: object) -> dict[str, Any]:
        lease.append("run")
        return {"stage": stage, "how": "ran", "seconds": 1.0}

    monkeypatch.setattr(stages.running, "run_stage", run_stage)
    monkeypatch.setattr(stages, "describe_assets", lambda *_: None)
    stages.stage_task(stage).fn(Workplace(root=tmp_path, origin=tmp_path, revision=None))
    assert lease == (HELD if stage in ("train", "evaluate") else ["run"])


@pytest.mark.parametrize("gpu", [True, False])
def test_scoring_and_comparing_hold_a_slot_where_there_is_a_gpu(
    gpu: bool, lease: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_command(command: list[str], *_: object) -> None:
        lease.append("run")
        if "-o" in command:
            Path(command[command.index("-o") + 1]).write_text("{}")

    monkeypatch.setattr(scoring, "has_gpu", lambda: gpu)
    monkeypatch.setattr(scoring, "run_command", run_command)
    monkeypatch.setattr(scoring, "in_service", lambda origin: "c0ffee")
    monkeypatch.setattr(scoring.dvc, "query", lambda *_: "")
    (tmp_path / scoring.MODEL).mkdir(parents=True)
    place = Workplace(root=tmp_path, origin=tmp_path, revision="c0ffee")
    scoring.score.fn(place, "in.csv", str(tmp_path / "out.csv"), "text")
    scoring.compare.fn(place)
    assert lease == 2 * (HELD if gpu else ["run"])


def test_reproducing_holds_a_slot(lease: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *_: object, **__: object) -> Finished:
        lease.append("run")
        report = dict.fromkeys(("revision", "commit", "verdict", "exit_code", "first", "causes", "missing"), "")
        Path(command[command.index("--json") + 1]).write_text(json.dumps(report))
        Path(command[command.index("--markdown") + 1]).write_text("")
        return Finished(0, (), 1.0, False)

    monkeypatch.setattr(reproduction.processes, "run", run)
    monkeypatch.setattr(reproduction, "create_markdown_artifact", lambda **values: lease.append(values["description"]))
    reproduction.reproduce_revision.fn(tmp_path, "<b>", False, False)
    assert lease == [*HELD, "&lt;b&gt;: "]
