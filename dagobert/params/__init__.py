"""params.yaml as frozen models: every value a user may set, each with its meaning, unit and range.

No value has a default here: params.yaml is the only place where one is written. Read with a YAML 1.2 loader, because
`dvc exp run -S train.learning_rate=3e-5` writes `3e-05`, which YAML 1.1 reads as a string.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dagobert.errors import ParameterError
from dagobert.params.base import Section
from dagobert.params.clean import CleanParams
from dagobert.params.data import DataParams
from dagobert.params.evaluate import EvaluateParams
from dagobert.params.labels import LabelsParams
from dagobert.params.model import ModelParams
from dagobert.params.split import SplitParams
from dagobert.params.tokenize import TokenizeParams
from dagobert.params.train import TrainParams

# Names people still type, and what `transformers` 5 or Dagobert calls the thing today.
RENAMED = {
    "warmup_ratio": "train.warmup_steps (a value below 1 is a ratio)",
    "group_by_length": "nothing: packed batches (BERT) have no padding to save, padded ones are always grouped by length",
    "train_sampling_strategy": "nothing: packed batches (BERT) have no padding to save, padded ones are grouped by length",
    "gradient_accumulation_steps": "train.train_batch_size (all sequences of an optimizer step: what does not fit into "
    "train.tokens_per_batch is computed in pieces whose gradients are added up)",
    "evaluation_strategy": "train.eval_strategy",
    "per_device_train_batch_size": "train.train_batch_size",
    "per_gpu_train_batch_size": "train.train_batch_size",
    "per_device_eval_batch_size": "train.tokens_per_batch (tokens, not sequences)",
    "batch_size": "train.train_batch_size",
    "lr": "train.learning_rate",
    "epochs": "train.num_train_epochs",
    "num_epochs": "train.num_train_epochs",
    "max_seq_length": "tokenize.max_length",
    "max_len": "tokenize.max_length",
    "model_name": "model.name_or_path",
    "model_name_or_path": "model.name_or_path",
    "pretrained_model_name_or_path": "model.name_or_path",
    "bf16": "train.precision (bf16)",
    "fp16": "train.precision",
    "no_cuda": "train.device (cpu)",
    "use_cpu": "train.device (cpu)",
    "random_state": "split.seed",
    "label_smoothing": "train.label_smoothing_factor",
    "clip_grad_norm": "train.max_grad_norm",
}


class Params(Section):
    """All of params.yaml."""

    data: DataParams = Field(description="where the rows come from")
    model: ModelParams = Field(description="the pre-trained encoder to start from")
    clean: CleanParams = Field(description="from the text in the file to the text the model reads")
    labels: LabelsParams = Field(description="from label text to class ids")
    tokenize: TokenizeParams = Field(description="from text to token ids")
    split: SplitParams = Field(description="which rows train, validate and test")
    train: TrainParams = Field(description="the recipe of fine-tuning")
    evaluate: EvaluateParams = Field(description="how the model is judged")


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Raises:
        ParameterError: names the file, every wrong value and the way out.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParameterError(f"{path}: no such file. Run from the root of a Dagobert repository.") from None
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ParameterError(f"{path}: not valid YAML: {error}") from error
    return check_params(values, str(path))


def check_params(values: Any, where: str = "params.yaml") -> Params:
    """Turn plain values into `Params`; `where` is named in errors.

    Raises:
        ParameterError: one line for each wrong value.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        lines = [_explain(item["loc"], item["type"], item["msg"], item["input"]) for item in error.errors()]
        raise ParameterError("\n".join(f"{where}: {line}" for line in dict.fromkeys(lines))) from None


def _explain(location: tuple[int | str, ...], kind: str, message: str, value: Any) -> str:
    names = _field_path(location)
    name = ".".join(names)
    if kind == "extra_forbidden":
        known = _known(names[:-1])
        hint = RENAMED.get(names[-1])
        if hint is not None:
            return f"unknown parameter {name}: today's name is {hint}."
        near = difflib.get_close_matches(names[-1], known, n=1)
        return f"unknown parameter {name}." + (f" Did you mean {near[0]}?" if near else f" Known here: {', '.join(known)}.")
    if kind == "missing":
        return f"{name} is missing ({_description(names)}). Add it."
    return f"{name} is {value!r}: {message[0].lower()}{message[1:]}. It is: {_description(names) or 'a section'}."


def _field_path(location: tuple[int | str, ...]) -> list[str]:
    """The names a user wrote; pydantic appends names of union members, which mean nothing to them."""
    names: list[str] = []
    model: type[Section] | None = Params
    for part in location:
        names.append(str(part))
        field = model.model_fields.get(str(part)) if model is not None else None
        if field is None:
            break
        annotation = field.annotation
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            break
        model = annotation
    return names


def _known(section: list[str]) -> list[str]:
    model: type[Section] = Params
    for name in section:
        annotation = model.model_fields[name].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            return []
        model = annotation
    return list(model.model_fields)


def _description(names: list[str]) -> str:
    model: type[Section] = Params
    text = ""
    for name in names:
        field = model.model_fields.get(name)
        if field is None:
            return text
        text = field.description or ""
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            model = field.annotation
    return text
