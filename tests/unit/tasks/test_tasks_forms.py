from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from dagobert.params import Params, check_params, load_params
from tasks import forms
from tasks.errors import WorkplaceError
from tasks.forms import AS_COMMITTED, FinetuneForm, chosen, committed
from tasks.values import differences, parse_setting, write_values
from tests.flows.projects import sh


def sections() -> list[tuple[str, str]]:
    return [
        (section, name)
        for section, field in FinetuneForm.model_fields.items()
        for name in typing.cast(type[BaseModel], field.annotation).model_fields
    ]


def models(section: str) -> tuple[type[BaseModel], type[BaseModel]]:
    return typing.cast(
        tuple[type[BaseModel], type[BaseModel]],
        (FinetuneForm.model_fields[section].annotation, Params.model_fields[section].annotation),
    )


def as_committed(repository: Path) -> Params:
    text = committed()
    return load_params(repository / "params.yaml") if text is None else check_params(YAML(typ="safe", pure=True).load(text))


@pytest.mark.parametrize(("section", "name"), sections())
def test_the_form_agrees_with_the_parameters(section: str, name: str, repository: Path) -> None:
    form, model = models(section)
    assert form.model_fields[name].annotation == model.model_fields[name].annotation
    assert form.model_fields[name].description == model.model_fields[name].description
    assert form.model_fields[name].default == getattr(getattr(as_committed(repository), section), name)
    mine, theirs = (kind.model_json_schema()["properties"][name] for kind in (form, model))
    assert {key: value for key, value in mine.items() if key != "default"} == theirs


def test_only_what_was_sent_is_written() -> None:
    assert AS_COMMITTED.values() == {}
    form = FinetuneForm.model_validate({"train": {"learning_rate": 5e-5}, "split": {}})
    assert form.values() == {"train": {"learning_rate": 5e-5}}


def test_what_the_form_only_showed_was_not_chosen() -> None:
    shown = {"learning_rate": {"default": 1e-4}, "num_train_epochs": {"default": 2}, "seed": {}}
    schema = {"definitions": {"TrainForm": {"properties": shown}}}
    sent = {"train": {"learning_rate": 1e-4, "num_train_epochs": 3, "seed": 42}, "split": {"seed": 1}}
    assert chosen(sent, schema) == {"train": {"num_train_epochs": 3, "seed": 42}, "split": {"seed": 1}}
    assert chosen(sent, {}) == sent  # a deployment of another program


def test_what_is_not_committed_is_not_shown(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "_ROOT", tmp_path)
    path = tmp_path / "params.yaml"
    path.write_text((repository / "params.yaml").read_text())
    assert forms._shown()["train"]["seed"] == 42  # nothing is committed yet: the file
    sh(tmp_path, "git", "init", "-q")
    sh(tmp_path, "git", "add", "-A")
    sh(tmp_path, "git", "commit", "-qm", "Start")
    write_values(path, {"train": {"seed": 7}})
    assert forms._shown()["train"]["seed"] == 42
    sh(tmp_path, "git", "commit", "-qam", "Another seed")
    assert forms._shown()["train"]["seed"] == 7


@pytest.mark.parametrize("values", [{"train": {"learning_rate": 3}}, {"train": {"lr": 1e-4}}, {"trian": {}}])
def test_wrong_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FinetuneForm.model_validate(values)


def test_writing_values_keeps_every_comment(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    original = (repository / "params.yaml").read_text()
    path.write_text(original)
    write_values(path, {"train": {"learning_rate": 5e-5}, "split": {"train_size": "all"}})
    params = load_params(path)
    assert (params.train.learning_rate, params.split.train_size) == (5e-5, "all")
    changed = [
        (a, b) for a, b in zip(original.splitlines(), path.read_text().splitlines(), strict=True) if a.split() != b.split()
    ]
    assert len(changed) == 2
    assert all(a[a.index("#") :] == b[b.index("#") :] for a, b in changed)


def test_writing_nothing_changes_no_byte(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((repository / "params.yaml").read_text())
    write_values(path, {})
    assert path.read_bytes() == (repository / "params.yaml").read_bytes()


def test_a_wrong_value_is_named(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((repository / "params.yaml").read_text())
    with pytest.raises(WorkplaceError, match=r"train.learning_rate is 7"):
        write_values(path, {"train": {"learning_rate": 7}})
    with pytest.raises(WorkplaceError, match=r"no section 'nowhere'"):
        write_values(path, {"nowhere": {"x": 1}})


def test_settings_of_the_shell() -> None:
    assert parse_setting("train.learning_rate=5e-5") == ("train", "learning_rate", 5e-5)
    assert parse_setting("split.train_size=all") == ("split", "train_size", "all")
    with pytest.raises(WorkplaceError, match=r"SECTION.NAME=VALUE"):
        parse_setting("learning_rate=1")


def test_differences_to_a_commit(repository: Path) -> None:
    values = {"train": {"seed": 42, "learning_rate": 1e-5}}
    assert differences(values, repository / "params.yaml") == {"train": {"learning_rate": 1e-5}}
