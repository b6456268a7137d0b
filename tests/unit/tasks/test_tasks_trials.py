from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dagobert.params.train import TrainParams
from tasks.errors import WorkplaceError
from tasks.trials import TRIED, TrialsForm, conclusion, label, trials


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


@pytest.mark.parametrize("name", TRIED)
def test_a_list_takes_what_the_parameter_takes(name: str) -> None:
    listed, single = (kind.model_json_schema()["properties"][name] for kind in (TrialsForm, TrainParams))
    assert listed["description"] == single["description"]
    ranges = {key: value for key, value in single.items() if key not in ("title", "description")}
    assert len(ranges) > 1
    assert listed["items"] == ranges
    with pytest.raises(ValidationError):
        TrialsForm.model_validate({name: [-1]})


def row(trial: str, experiment: str | None, outcome: str = "recorded") -> dict[str, Any]:
    return {"trial": trial, "experiment": experiment, "outcome": outcome}


def test_the_end_of_a_sweep_says_what_failed() -> None:
    good, bad = row("seed 1", "a-seed-1"), row("seed 2", None, "Failed: no space left")
    assert conclusion([good]).message == "best on validation: seed 1 (a-seed-1)"
    partly = conclusion([good, bad])
    assert partly.is_completed()
    assert partly.message == "best on validation: seed 1 (a-seed-1)\n1 of 2 trials failed:\nseed 2: Failed: no space left"
    failed = conclusion([bad, bad])
    assert failed.is_failed()
    assert failed.message == "every trial failed (2). seed 2: Failed: no space left"
