"""Trials of a sweep: which there are, and the table that compares them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Any

from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import BaseModel, Field, create_model

from dagobert.params import Params
from tasks.errors import WorkplaceError
from tasks.forms import FinetuneForm, Form
from tasks.labels import number

MOST_TRIALS = 100
TRIED = ("learning_rate", "num_train_epochs", "train_batch_size", "seed")  # of the section train


def _form() -> type[Form]:
    """A list of each value, every one of which is what the parameters' own model takes."""
    model = Params.model_fields["train"].annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    made: dict[str, Any] = {}
    for name in TRIED:
        field = model.model_fields[name]
        one = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        made[name] = (list[one], Field(default=[], description=field.description))  # type: ignore[valid-type]
    meaning = "Values to try: every combination is a trial. An empty list leaves the value as params.yaml has it."
    return create_model("TrialsForm", __base__=Form, __doc__=meaning, **made)


if TYPE_CHECKING:

    class TrialsForm(Form):
        """Values to try."""

else:
    TrialsForm = _form()

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
    """The trials, best first by validation (the test rows judge, they do not choose), as a table artifact.

    Every row has every column: the UI takes the columns from the first.
    """
    columns = dict.fromkeys(["trial", "experiment", "outcome", *(name for row in rows for name in row)])
    ordered = sorted(rows, key=lambda row: (_failed(row), -(row.get("validation accuracy") or 0.0)))
    table = [{name: row.get(name) for name in columns} for row in ordered]
    create_table_artifact(table=table, key="sweep", description="Trials, the best on validation rows first")
    return ordered


def conclusion(ordered: list[dict[str, Any]]) -> State[dict[str, Any]]:
    """The last state of a sweep: which trial was best and which failed; failed when every one did."""
    failed = [row for row in ordered if _failed(row)]
    if len(failed) == len(ordered):
        return Failed(message=f"every trial failed ({len(failed)}). {_why(failed[0])}")
    best = ordered[0]
    message = f"best on validation: {best['trial']} ({best['experiment']})"
    if not failed:
        return Completed(message=message, data=best)
    reasons = "\n".join(map(_why, failed))
    return Completed(
        name="PartlyFailed", message=f"{message}\n{len(failed)} of {len(ordered)} trials failed:\n{reasons}", data=best
    )


def _failed(row: dict[str, Any]) -> bool:
    return row["experiment"] is None


def _why(row: dict[str, Any]) -> str:
    return f"{row['trial']}: {row['outcome']}"
