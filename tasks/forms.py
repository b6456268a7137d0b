"""The form of a run in the Prefect UI: the parameters that make sense to vary, with meaning, range and choices of their models.

Values are shown as params.yaml has them when a deployment is made. What the form shows is what runs: each value that is sent is
written into the clone's params.yaml, and one that is not sent (a schedule sends none) stays as that commit has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, create_model
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dagobert.params import Params

OFFERED = {
    "train": (
        "learning_rate",
        "num_train_epochs",
        "train_batch_size",
        "seed",
        "weight_decay",
        "warmup_steps",
        "lr_scheduler_type",
        "hidden_dropout_prob",
        "classifier_dropout",
        "label_smoothing_factor",
        "precision",
        "device",
    ),
    "split": ("strategy", "seed", "train_size", "validation_size", "test_size"),
    "tokenize": ("max_length", "truncation"),
    "model": ("name_or_path",),
    "data": ("source", "path", "format", "text", "label"),
}
_PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"


class Form(BaseModel):
    """A form or a section of one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())

    def values(self) -> dict[str, Any]:
        """What was sent, a section at a time, and nothing else."""
        sent = self.model_dump(exclude_unset=True, mode="json")
        return {section: fields for section, fields in sent.items() if fields != {}}


def _shown() -> dict[str, Any]:
    """Values to show; nothing when params.yaml cannot be read (the run itself will say why)."""
    try:
        values = YAML(typ="safe", pure=True).load(_PARAMS)
    except (OSError, YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _section(name: str, fields: tuple[str, ...], shown: dict[str, Any]) -> type[Form]:
    """A section of the form, made from the parameters' own model."""
    model = Params.model_fields[name].annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    made: dict[str, Any] = {field: _field(model.model_fields[field], shown.get(field)) for field in fields}
    base = type("Base", (Form,), {"model_config": ConfigDict(title=name.capitalize())})
    return create_model(f"{name.capitalize()}Form", __base__=base, __doc__=Params.model_fields[name].description, **made)


def _field(original: FieldInfo, shown: Any) -> tuple[Any, FieldInfo]:
    field = FieldInfo(default=shown, description=original.description)
    field.metadata = list(original.metadata)
    return original.annotation, field


def _form() -> type[Form]:
    shown = _shown()
    sections = {name: _section(name, fields, shown.get(name) or {}) for name, fields in OFFERED.items()}
    made: dict[str, Any] = {name: (section, section()) for name, section in sections.items()}
    return create_model("FinetuneForm", __base__=Form, __doc__="What a run may vary.", **made)


if TYPE_CHECKING:

    class FinetuneForm(Form):
        """What a run may vary."""

else:
    FinetuneForm = _form()

AS_COMMITTED = FinetuneForm()
