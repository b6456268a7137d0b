"""Past experiments on the real pipeline: recorded, found, compared, promoted, reproduced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Run, runner, set_params


@pytest.fixture(scope="module", autouse=True)
def timid(workspace: Path) -> Iterator[None]:
    """Beside the run on `main`, an experiment that hardly learns; both gone at the end."""
    run = runner(workspace)
    set_params(workspace / "params.yaml", {"train.num_train_epochs": 1, "train.learning_rate": 0.00001})
    run("dvc", "repro")
    run("dagobert", "record", "timid", "--started-by", "a test")
    run("git", "restore", ".")
    run("dvc", "checkout")
    yield
    refs = run("git", "for-each-ref", "--format=%(refname)", "refs/exps", "refs/tags").split()
    for ref in refs:
        run("git", "update-ref", "-d", ref)


def test_the_recorded_run_is_identical_when_run_again(workspace: Path, run: Run) -> None:
    shown = run("dagobert", "reproduce", "main", "--json", "report.json")
    assert "): identical" in shown.splitlines()[0]
    report = json.loads((workspace / "report.json").read_text())
    (workspace / "report.json").unlink()
    assert [stage["outcome"] for stage in report["stages"]] == ["input", *["identical"] * 6]
    assert report["faults"] == []
    assert run("git", "status", "--porcelain") == ""


def test_found_and_compared(workspace: Path, run: Run) -> None:
    table = run("dagobert", "experiments")
    (line,) = [line for line in table.splitlines() if line.startswith("timid")]
    assert "a test" in line
    assert "train.learning_rate=1e-05" in line
    shown = run("dagobert", "compare", "main", "timid")
    assert "train.num_train_epochs: 5 → 1" in shown
    assert "main is better than timid, and not by chance." in shown
    assert (workspace / ".dagobert/comparisons/main..timid.png").is_file()


def test_a_model_tells_where_it_came_from(run: Run) -> None:
    shown = run("dagobert", "inspect", "models/finetuned")
    assert "exactly models/finetuned as it was recorded" in shown
    assert "made from exactly this commit" in shown
    assert "base_model.sha256" in shown


def test_promoted_and_asked_for_by_stage(workspace: Path, run: Run) -> None:
    run("dagobert", "promote", "timid")
    assert "passed  better" in run("dagobert", "promote", "main", "--because", "it is surer of itself")
    assert "it is surer of itself" in run("dagobert", "promotions")
    assert "timid was not put in production" in run("dagobert", "promote", "timid", code=2)
    new = workspace.parent / "new.csv"
    new.write_text("text\na wonderful happy film\n")
    by_stage, by_path = (run("dagobert", "predict", model, new, "-o", "-") for model in ("production", "models/finetuned"))
    assert by_stage == by_path


def test_every_byte_is_whole_and_nothing_is_left_over(run: Run) -> None:
    assert "none damaged" in run("dagobert", "fsck")
    assert "unreferenced" not in run("dagobert", "tidy", "--dry-run")
    assert "nothing out of date" in run("dagobert", "doctor")
