from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows import projects


def test_flow_leaves_a_clean_status_and_a_second_run_does_nothing(in_project: Path) -> None:
    from flows.finetune import finetune

    finetune()
    assert projects.status(in_project) == {}
    lock = (in_project / "dvc.lock").read_bytes()
    finetune()
    assert (in_project / "dvc.lock").read_bytes() == lock
    assert "didn't change" in projects.sh(in_project, "dvc", "repro")
    assert not any((in_project / ".dagobert").rglob("*storage*"))


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
