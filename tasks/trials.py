"""Trials of a sweep: which there are, and the table that compares them."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

from prefect.artifacts import create_table_artifact
from pydantic import Field

from tasks.errors import WorkplaceError
from tasks.forms import FinetuneForm, Form
from tasks.labels import number

MOST_TRIALS = 100


class TrialsForm(Form):
    """Values to try: every combination is a trial. An empty list leaves the value as params.yaml has it."""

    learning_rate: list[Annotated[float, Field(gt=0, le=1)]] = Field(default=[], description="peak learning rates of AdamW")
    num_train_epochs: list[Annotated[int, Field(ge=1, le=1000)]] = Field(
        default=[], description="passes over the training rows"
    )
    train_batch_size: list[Annotated[int, Field(ge=1)]] = Field(default=[], description="sequences in one optimizer step")
    seed: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(default=[], description="seeds of head, dropout and batch order")


NO_TRIALS = TrialsForm()


def trials(form: TrialsForm) -> list[FinetuneForm]:
    """Every combination of the values, in the order of the form.

    Raises:
        WorkplaceError: there is nothing to try, or too much.
    """
    lists = {name: values for name in type(form).model_fields if (values := getattr(form, name))}
    combinations = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    if not lists or len(combinations) > MOST_TRIALS:
        raise WorkplaceError(
            f"{len(combinations) if lists else 0} trials: give 1 to {MOST_TRIALS} combinations of values to try."
        )
    return [FinetuneForm.model_validate({"train": values}) for values in combinations]


def label(trial: FinetuneForm) -> str:
    """A trial in a few words: `learning rate 5e-5 · seed 1`."""
    return " · ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in trial.values()["train"].items())


def show_table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trials, best first by validation (the test rows judge, they do not choose), as a table artifact."""
    ordered = sorted(rows, key=lambda row: -(row.get("validation accuracy") or 0.0))
    create_table_artifact(table=ordered, key="sweep", description="Trials, the best on validation rows first")
    return ordered
