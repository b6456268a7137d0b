from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dagobert import runner
from dagobert.errors import DamagedObjectError, InputsChangedError, ParameterError
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


@pytest.mark.parametrize(
    ("path", "before", "after", "named"),
    [
        ("dagobert/cleaning.py", "a = 1", "a = 2", "dagobert/cleaning.py"),
        ("params.yaml", "min_chars: 1 ", "min_chars: 2 ", "params.yaml: clean"),
    ],
)
def test_code_and_parameters_that_change_underneath_stop_the_stage_that_dvc_would_record_them_for(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, repository: Path, path: str, before: str, after: str, named: str
) -> None:
    shutil.copy(repository / "dvc.yaml", workplace)
    (workplace / "input").write_text("x")
    (workplace / "dagobert").mkdir()
    (workplace / "dagobert/cleaning.py").write_text("a = 1")

    def edit(params: Any) -> None:
        text = (workplace / path).read_text()
        assert before in text
        (workplace / path).write_text(text.replace(before, after))

    use(monkeypatch, edit)
    with pytest.raises(InputsChangedError, match=f"^{named} changed while clean was running"):
        runner.run_stage("clean")


@pytest.mark.parametrize(("found", "refused"), [("as written", False), ("as Written", True), (None, True)])
def test_what_an_earlier_stage_wrote_is_checked_before_it_is_read(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, found: str | None, refused: bool
) -> None:
    md5 = hashlib.md5(b"as written").hexdigest()
    (workplace / "dvc.lock").write_text(
        f"schema: '2.0'\nstages:\n  fetch:\n    cmd: x\n    outs:\n    - {{path: input, hash: md5, md5: {md5}, size: 10}}\n"
    )
    if found is not None:
        (workplace / "input").write_text(found)
    monkeypatch.setattr(runner, "end_with_parent", lambda: None)
    ran: list[Any] = []
    use(monkeypatch, ran.append)
    runner.run_stage("clean")  # by hand, without DVC: whatever lies there
    monkeypatch.setenv("DVC_STAGE", "clean")
    with pytest.raises(DamagedObjectError, match=r"^input is not what fetch wrote") if refused else contextlib.nullcontext():
        runner.run_stage("clean")
    assert len(ran) == (1 if refused else 2)


def test_what_other_stages_depend_on_may_change_underneath(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    shutil.copy(repository / "dvc.yaml", workplace)
    (workplace / "input").write_text("x")
    params = workplace / "params.yaml"
    use(monkeypatch, lambda _: params.write_text(params.read_text().replace("num_train_epochs: 2", "num_train_epochs: 3")))
    runner.run_stage("clean")
    assert "num_train_epochs: 3" in params.read_text()


def test_every_stage_has_a_module() -> None:
    for name in runner.STAGES:
        module = runner.stage_module(name)
        assert callable(module.run)
        assert all(isinstance(path, Path) for path in module.OUTPUTS)


def test_no_parameters_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match="Run from the root of a Dagobert repository"):
        runner.run_stage("clean")
