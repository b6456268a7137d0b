"""params.yaml, its models and the README agree; a value reaches the code as it was written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dagobert.errors import ParameterError
from dagobert.params import RENAMED, Params, check_params, load_params
from tools.parameters_table import table


@pytest.fixture(scope="module")
def text(repository: Path) -> str:
    return (repository / "params.yaml").read_text(encoding="utf-8")


def flat(model: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():  # type: ignore[attr-defined]
        if hasattr(field.annotation, "model_fields"):
            yield from flat(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def test_values_pass_through_unchanged(repository: Path, text: str) -> None:
    written = YAML(typ="safe", pure=True).load(text)
    read = load_params(repository / "params.yaml").model_dump(mode="json")
    assert read == written


def test_every_value_is_explained_in_the_file(text: str) -> None:
    for line in text.splitlines():
        if re.match(r"^  [a-z_]\w*:", line):
            assert " # " in line, f"no comment: {line}"


def test_every_field_is_explained_in_the_model() -> None:
    for name, field in flat(Params):
        assert field.description, name
        assert field.is_required(), f"{name} has a default: params.yaml is the only place for values"


def test_old_names_lead_to_names_that_exist() -> None:
    known = {name for name, _ in flat(Params)}
    for old, new in RENAMED.items():
        assert new.startswith("nothing") or new.split(" ")[0] in known, f"{old} → {new}"


def test_the_readme_table_is_the_schema(repository: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    assert table(repository) in readme, "run: python -m tools.parameters_table"


def with_value(text: str, section: str, name: str, value: Any) -> Any:
    values = YAML(typ="safe", pure=True).load(text)
    values[section][name] = value
    return values


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("train", "learning_rat", 1e-4, "unknown parameter train.learning_rat. Did you mean learning_rate?"),
        ("train", "warmup_ratio", 0.1, "today's name is train.warmup_steps"),
        ("train", "per_device_train_batch_size", 8, "today's name is train.train_batch_size"),
        (
            "train",
            "gradient_accumulation_steps",
            4,
            "today's name is train.train_batch_size (all sequences of an optimizer step",
        ),
        ("train", "group_by_length", True, "today's name is nothing: packed batches (BERT) have no padding to save"),
        ("train", "learning_rate", -1.0, "train.learning_rate is -1.0: input should be greater than 0"),
        ("train", "learning_rate", "fast", "train.learning_rate is 'fast'"),
        ("train", "lr_scheduler_type", "linaer", "train.lr_scheduler_type is 'linaer'"),
        ("tokenize", "max_length", 2, "tokenize.max_length is 2"),
        ("split", "train_size", "some", "split.train_size is 'some'"),
        ("train", "freeze", -1, "train.freeze is -1: input should be greater than or equal to 0"),
        ("train", "freeze", "all", "train.freeze is 'all': input should be 'none', 'encoder' or 'embeddings'"),
        ("train", "seed", True, "train.seed is True"),
    ],
)
def test_a_wrong_value_gets_one_clear_line(text: str, section: str, name: str, value: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(message)) as caught:
        check_params(with_value(text, section, name, value))
    assert "pydantic" not in str(caught.value)


def test_a_missing_value_is_named_with_its_meaning(text: str) -> None:
    values = YAML(typ="safe", pure=True).load(text)
    del values["train"]["learning_rate"]
    with pytest.raises(ParameterError, match=r"train\.learning_rate is missing \(peak learning rate"):
        check_params(values)


def test_scientific_notation_is_a_number(tmp_path: Path, text: str) -> None:
    # what `dvc exp run -S train.learning_rate=3e-5` writes; YAML 1.1 reads it as a string
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(r"learning_rate: \S+", "learning_rate: 3e-05", text), encoding="utf-8")
    assert load_params(path).train.learning_rate == 3e-5


def test_broken_yaml_and_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(ParameterError, match="no such file"):
        load_params(path)
    path.write_text("train: [1, 2\n", encoding="utf-8")
    with pytest.raises(ParameterError, match="not valid YAML"):
        load_params(path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(ParameterError):
        load_params(path)
