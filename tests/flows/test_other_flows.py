"""`retrain`, `sweep` and `predict` on a project whose `dagobert` command is a stand-in."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from tests.flows import projects

STAND_IN = """#!{python}
import json, pathlib, subprocess, sys
command, *rest = sys.argv[1:]
if command == "predict":
    pathlib.Path(rest[rest.index("-o") + 1]).write_text(pathlib.Path(rest[0], "part").read_text())
elif command == "compare":
    difference = float(pathlib.Path({difference!r}).read_text())
    figures = dict(n=100, accuracy_difference=difference, mcnemar_mid_p=0.01)
    figures.update(candidate_accuracy=0.8 + difference, incumbent_accuracy=0.8)
    pathlib.Path(rest[rest.index("-o") + 1]).write_text(json.dumps(figures))
elif command == "promote":
    tags = subprocess.check_output(["git", "tag"], text=True).split()
    if tags and "--because" not in rest:
        sys.exit("dagobert promote: x was not put in production:\\n  better: not the same rows\\nTo do it all the same …")
    refs = subprocess.check_output(["git", "for-each-ref", "--format=%(refname)", "refs/exps"], text=True).split()
    (ref,) = [ref for ref in refs if ref.endswith("/" + rest[0])]
    subprocess.check_call(["git", "tag", f"model#production#{{len(tags) + 1}}", ref])
"""


@pytest.fixture
def stand_in(in_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project, with a `dagobert` that comes before the real one."""
    directory = tmp_path / "bin"
    directory.mkdir()
    command = directory / "dagobert"
    (tmp_path / "difference").write_text("0.1")
    command.write_text(STAND_IN.format(python=sys.executable, difference=str(tmp_path / "difference")))
    command.chmod(command.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr("tasks.dvc._this_pythons_commands", lambda: f"{directory}{os.pathsep}{Path(sys.prefix) / 'bin'}")
    monkeypatch.setenv("DAGOBERT_CLONES", str(tmp_path / "clones"))
    return in_project


def test_retraining_promotes_the_better_keeps_the_worse_and_judges_nothing_twice(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.retrain import retrain

    def night(source: str, difference: float) -> tuple[str, str]:
        (tmp_path / "source").write_text(source)
        (tmp_path / "difference").write_text(str(difference))
        state = retrain(return_state=True)
        return str(state.name), str(state.message)

    def experiments() -> list[str]:
        return projects.sh(stand_in, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()

    monkeypatch.setenv("FAKE_SOURCE", str(tmp_path / "source"))
    _, message = night("a", 0.1)
    assert message.endswith("is now in service: no model was in service")
    same = "the source has nothing new; the model in service stays (the model in service was made from the same rows)"
    assert night("a", 0.1) == ("NothingNew", same)

    _, message = night("b", -0.05)
    assert "is kept as an experiment, the model in service stays: worse: -5.0 points on 100 held-out rows" in message
    assert len(experiments()) == 2
    name, message = night("b", -0.05)  # the same rows, the same model in service: the same end, without the work
    assert name == "NothingNew"
    assert "was made from the same rows and kept on 20" in message
    assert ": worse: -5.0 points" in message
    assert len(experiments()) == 2

    _, message = night("c", 0.1)
    assert "is now in service: better: +10.0 points on 100 held-out rows" in message
    assert projects.sh(stand_in, "git", "tag").split() == ["model#production#1", "model#production#2"]


def test_a_sweep_records_each_trial_and_scoring_takes_its_model(stand_in: Path, tmp_path: Path) -> None:
    from flows.predict import main as predict
    from flows.sweep import main as sweep

    assert sweep(["-S", "seed=[1,2]"]) == 0
    refs = projects.sh(stand_in, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    assert len(refs) == 2
    lock = json.dumps(projects.sh(stand_in, "git", "show", f"{refs[0]}:dvc.lock"))
    assert "models/finetuned" in lock
    (tmp_path / "in.csv").write_text("text\nx\n")
    assert predict([str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv"), "--model", refs[0].rsplit("/", 1)[-1]]) == 0
    assert (tmp_path / "out.csv").read_text().startswith("models/finetuned ")
    assert predict([str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv"), "--model", "nothing"]) == 2
    assert clones(tmp_path) == []


def clones(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "clones").glob("*/*") if path.is_dir()]


def test_a_file_that_is_not_there_is_missed_before_any_work(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.predict import main as predict

    def disposable(*_: object, **__: object) -> None:
        raise AssertionError("a clone is made")

    monkeypatch.setattr("tasks.clones.disposable", disposable)
    assert predict([str(tmp_path / "none.csv"), "-o", str(tmp_path / "out.csv"), "--model", "HEAD"]) == 2
    assert f"{tmp_path / 'none.csv'}: there is no such file on " in capsys.readouterr().err


def test_scoring_that_fails_leaves_no_clone(stand_in: Path, tmp_path: Path) -> None:
    from flows.predict import main as predict

    (tmp_path / "in.csv").write_text("text\nx\n")
    assert predict([str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv"), "--model", "HEAD"]) == 2  # it has no model
    assert clones(tmp_path) == []
