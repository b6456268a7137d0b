"""The form of a run in the Prefect UI: the parameters that make sense to vary, with meaning, range and choices of their models.

Values are shown as the commit had them when the deployment was made (`flows.serve` makes it anew after a commit that changes
params.yaml). The UI sends every field of the form, so a value counts as chosen only when it differs from what the form showed:
it is written into the clone's params.yaml, and all others stay as the run's own revision has them. A schedule sends none.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, create_model
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dagobert.params import Params
from tasks import dvc
from tasks.errors import WorkplaceError
from tasks.values import Values

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
_ROOT = Path(__file__).resolve().parents[1]


class Form(BaseModel):
    """A form or a section of one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())

    def values(self) -> dict[str, Any]:
        """What was sent, a section at a time, and nothing else."""
        sent = self.model_dump(exclude_unset=True, mode="json")
        return {section: fields for section, fields in sent.items() if fields != {}}


def chosen(sent: Values, schema: dict[str, Any]) -> Values:
    """The values of a form that say something else than the form showed.

    Args:
        sent: {section: {name: value}}, as the UI sends it: every field.
        schema: the parameters of the deployment, with the defaults that the form showed.
    """
    forms = schema.get("definitions", {})
    found: dict[str, dict[str, Any]] = {}
    for section, fields in sent.items():
        shown = forms.get(_form_name(section), {}).get("properties", {})
        for name, value in fields.items():
            if "default" not in shown.get(name, {}) or shown[name]["default"] != value:
                found.setdefault(section, {})[name] = value
    return found


def committed() -> str | None:
    """The text of params.yaml in the commit that is checked out; None where there is none."""
    try:
        return dvc.git(_ROOT, "show", "HEAD:./params.yaml")
    except (WorkplaceError, OSError):
        return None


def _shown() -> dict[str, Any]:
    """Values to show; nothing when params.yaml cannot be read (the run itself will say why)."""
    try:
        text = committed()
        values = YAML(typ="safe", pure=True).load(_ROOT / "params.yaml" if text is None else text)
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
    return create_model(_form_name(name), __base__=base, __doc__=Params.model_fields[name].description, **made)


def _form_name(section: str) -> str:
    return f"{section.capitalize()}Form"


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
