from __future__ import annotations

import fcntl
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from tasks import liveness
from tasks.errors import WorkplaceError
from tasks.scoring import verdict
from tasks.trials import TrialsForm, label, trials


def found(n: int, difference: float, p: float) -> dict[str, Any]:
    return {
        "n": n,
        "accuracy_difference": difference,
        "mcnemar_mid_p": p,
        "candidate_accuracy": 0.9,
        "incumbent_accuracy": 0.9 - difference,
    }


@pytest.mark.parametrize(
    ("figures", "promoted", "words"),
    [
        ({}, True, "no model was in service"),
        (found(1000, 0.02, 0.01), True, "better: +2.0 points on 1,000 held-out rows (p = 0.01): 90.0% against 88.0%"),
        (found(1000, 0.02, 0.06), False, "no more than chance"),
        (found(1000, -0.02, 0.01), False, "worse"),
        (found(29, 0.2, 0.01), False, "only 29 held-out rows"),
    ],
)
def test_only_what_is_better_by_more_than_chance_is_promoted(figures: dict[str, Any], promoted: bool, words: str) -> None:
    assert verdict(figures) == (promoted, verdict(figures)[1])
    assert words in verdict(figures)[1]


def test_trials_are_every_combination() -> None:
    made = trials(TrialsForm(learning_rate=[1e-4, 5e-5], seed=[1, 2]))
    assert [label(trial) for trial in made] == [
        "learning rate 1e-4 · seed 1",
        "learning rate 1e-4 · seed 2",
        "learning rate 5e-5 · seed 1",
        "learning rate 5e-5 · seed 2",
    ]


@pytest.mark.parametrize("form", [TrialsForm(), TrialsForm(seed=list(range(101)))])
def test_nothing_or_too_much_to_try(form: TrialsForm) -> None:
    with pytest.raises(WorkplaceError, match="trials: give 1 to 100"):
        trials(form)


def test_the_living_and_the_dead(tmp_path: Path) -> None:
    run = uuid4()
    assert liveness.is_alive(tmp_path, run) is None
    with liveness.alive(tmp_path, run):
        assert liveness.is_alive(tmp_path, run)
    assert liveness.is_alive(tmp_path, run) is None
    path = tmp_path / ".dagobert" / "runs" / str(run)
    path.touch()  # left by a process that was killed
    assert liveness.is_alive(tmp_path, run) is False
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert liveness.is_alive(tmp_path, run)
    os.close(fd)


HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("kind", "age", "process", "dead"),
    [
        ("PENDING", 200, None, False),
        ("PENDING", 400, None, True),
        ("RUNNING", 9999, None, False),
        ("RUNNING", 9999, f"{HERE}:self", False),  # the process of this test
        ("RUNNING", 9999, f"{HERE}:4194304", True),  # above the largest process id of Linux
        ("RUNNING", 20, f"{HERE}:4194304", False),
        ("CANCELLING", 60, f"{HERE}:4194304", True),
        ("RUNNING", 9999, "elsewhere:4194304", False),
    ],
)
def test_a_run_without_a_lock_is_judged_by_its_process(
    tmp_path: Path, kind: str, age: int, process: str | None, dead: bool
) -> None:
    process = process and process.replace("self", str(os.getpid()))
    now = datetime.now(UTC)
    state = SimpleNamespace(type=kind, timestamp=now - timedelta(seconds=age))
    run: Any = SimpleNamespace(id=uuid4(), state=state, infrastructure_pid=process)
    assert liveness._is_dead(run, tmp_path, now) is dead
