from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows import projects


@pytest.fixture
def storage(in_project: Path, tmp_path: Path) -> Iterator[Path]:
    """Where Prefect stores results, with storing them switched on."""
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, PREFECT_RESULTS_PERSIST_BY_DEFAULT, temporary_settings

    path = tmp_path / "storage"
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: path, PREFECT_RESULTS_PERSIST_BY_DEFAULT: True}):
        yield path


def stored(storage: Path) -> list[Path]:
    return [path for path in storage.rglob("*") if path.is_file()]


@pytest.fixture
def materializations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Asset and payload of each materialization that Prefect was told of."""
    told: list[tuple[str, Any]] = []

    def emit(event: str, resource: dict[str, str], payload: Any = None, **_: Any) -> None:
        if event == "prefect.asset.materialization.succeeded":
            told.append((resource["prefect.resource.id"], payload))

    monkeypatch.setattr("prefect.events.emit_event", emit)
    return told


def test_flow_leaves_a_clean_status_and_a_second_run_does_nothing(
    in_project: Path, storage: Path, materializations: list[tuple[str, Any]]
) -> None:
    from flows.finetune import finetune
    from tasks.dvc import locked_outs

    finetune()
    assert projects.status(in_project) == {}
    lock = (in_project / "dvc.lock").read_bytes()
    made = {"clean": "dataset", "tokenize": "tokens", "train": "model"}
    assert materializations == [(f"dagobert://{asset}", locked_outs(in_project, stage)) for stage, asset in made.items()]
    assert all(len(md5.removesuffix(".dir")) == 32 for _, outs in materializations for md5 in outs.values())
    assert "models/finetuned" in materializations[-1][1]

    materializations.clear()
    finetune()
    assert (in_project / "dvc.lock").read_bytes() == lock
    assert "didn't change" in projects.sh(in_project, "dvc", "repro")
    assert materializations == []  # what is up to date was not made again
    assert stored(storage) == []  # nothing is pickled


def test_what_prefect_stores_would_be_found(storage: Path) -> None:
    from prefect import flow

    flow(lambda: {"pickled": True}, name="stores")()
    assert stored(storage) != []


def test_a_parametrised_run_is_recorded_and_leaves_the_checkout_alone(
    in_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.finetune import main

    monkeypatch.setenv("DAGOBERT_CLONES", str(tmp_path / "clones"))
    assert main(["-S", "train.learning_rate=5e-5"]) == 0
    assert projects.sh(in_project, "git", "status", "--porcelain") == ""
    (ref,) = projects.sh(in_project, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    assert "5e-05" in projects.sh(in_project, "git", "show", f"{ref}:params.yaml")
    assert [path for path in (tmp_path / "clones").rglob("*") if path.is_file()] == []
    assert len(list((in_project / ".dagobert" / "reports").iterdir())) == 1


def test_a_wrong_value_is_refused_before_any_work(capsys: pytest.CaptureFixture[str]) -> None:
    from flows.finetune import main

    assert main(["-S", "train.learning_rate=5"]) == 2
    assert "train.learning_rate: Input should be less than or equal to 1" in capsys.readouterr().err
