from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dagobert import runner
from dagobert.errors import InputsChangedError, ParameterError
from dagobert.stages import paths


@pytest.fixture
def workplace(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(repository / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def use(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    module = SimpleNamespace(OUTPUTS=(Path("out"),), inputs=lambda params: [Path("input")], run=run)
    monkeypatch.setattr(runner, "stage_module", lambda name: module)


def test_a_stage_gets_its_parameters_and_leaves_events(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "input").write_text("x")
    seen: list[Any] = []
    use(monkeypatch, seen.append)
    runner.run_stage("clean")
    assert seen[0].train.learning_rate > 0
    assert (workplace / paths.EVENTS / "clean.jsonl").exists()


def test_an_input_that_changes_underneath_stops_the_stage(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "input").write_text("before")
    use(monkeypatch, lambda params: (workplace / "input").write_text("after!"))
    with pytest.raises(InputsChangedError, match="input changed while clean was running"):
        runner.run_stage("clean")


def test_every_stage_has_a_module() -> None:
    for name in runner.STAGES:
        module = runner.stage_module(name)
        assert callable(module.run)
        assert all(isinstance(path, Path) for path in module.OUTPUTS)


def test_no_parameters_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match="Run from the root of a Dagobert repository"):
        runner.run_stage("clean")
