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
    figures = dict(n=100, accuracy_difference=0.1, mcnemar_mid_p=0.01, candidate_accuracy=0.9, incumbent_accuracy=0.8)
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
    command.write_text(STAND_IN.format(python=sys.executable))
    command.chmod(command.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr("tasks.dvc._this_pythons_commands", lambda: f"{directory}{os.pathsep}{Path(sys.prefix) / 'bin'}")
    monkeypatch.setenv("DAGOBERT_CLONES", str(tmp_path / "clones"))
    return in_project


def test_retraining_promotes_the_first_then_sees_nothing_new_then_promotes_the_better(stand_in: Path) -> None:
    from flows.retrain import retrain

    first = retrain(return_state=True)
    assert first.message is not None
    assert first.message.endswith("is now in service: no model was in service")
    second = retrain(return_state=True)
    assert (second.name, second.message) == ("NothingNew", "the source has nothing new; the model in service stays")
    (stand_in / "params.yaml").write_text((stand_in / "params.yaml").read_text().replace("max_bytes: ", "max_bytes: 9"))
    projects.sh(stand_in, "git", "commit", "-qam", "Other data")
    third = retrain(return_state=True)
    assert third.message is not None
    assert "is now in service: better: +10.0 points on 100 held-out rows" in third.message
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
