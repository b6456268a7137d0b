from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tasks import markdown, reports
from tasks.workplace import Workplace


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("<script>", "&lt;script&gt;"),
        ("a|b", r"a\|b"),
        ("[x](http://y)", r"\[x\]\(http\://y\)"),
        ("*bold* `code` # head", r"\*bold\* \`code\` \# head"),
        ("&amp;", r"&amp;amp;"),
        ("line\nbreak\u202e", "line break "),
        ("x" * 99, "x" * 79 + "…"),
    ],
)
def test_text_from_data_is_never_markup(data: str, shown: str) -> None:
    assert markdown.text(data) == shown


def test_tables() -> None:
    assert markdown.table(["name", "rows"], [("a|b", 12000), ("c", 1)]).splitlines() == [
        "| name | rows |",
        "| --- | ---: |",
        r"| a\|b | 12,000 |",
        "| c | 1 |",
    ]


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    (tmp_path / "reports" / "plots").mkdir(parents=True)
    (tmp_path / "reports" / "evaluation").mkdir()
    return Workplace(root=tmp_path, origin=tmp_path, revision="f" * 40)


def write(place: Workplace, name: str, value: object) -> None:
    (place.root / "reports" / name).write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize("stage", ["fetch", "clean", "encode-labels", "tokenize", "split", "train", "evaluate"])
def test_a_report_that_is_not_there_or_damaged_is_not_shown(place: Workplace, stage: str) -> None:
    assert reports.after(stage, place) is None
    for name in ("data.json", "split.json", "train.json", "metrics.json"):
        write(place, name, "{not json")
    assert reports.after(stage, place) is None


def test_data_report(place: Workplace) -> None:
    values = {"rows_read": 12, "rows_quarantined": 2, "rows_out": 10, "labels": {"<b>": 7, "x": 3}}
    write(place, "data.json", {**values, "quarantined_by_reason": {"empty_text": 2}})
    text = reports.after("clean", place)
    assert text is not None
    assert "| read | 12 |" in text
    assert "| empty\\_text | 2 |" in text
    assert text.index("&lt;b&gt;") < text.index("| x |")


def test_split_report(place: Workplace) -> None:
    classes = {"b|d": {"train": 2, "test": 1}, "good": {"train": 3, "test": 1}}
    write(place, "split.json", {"sizes": {"train": 5, "test": 2}, "classes": classes, "warnings": ["<i>few</i>"]})
    text = reports.after("split", place)
    assert text is not None
    assert "| class | train | test |" in text
    assert r"| b\|d | 2 | 1 |" in text
    assert "⚠ &lt;i&gt;few" in text


def test_training_and_evaluation_show_pictures_and_the_baseline(place: Workplace) -> None:
    write(place, "train.json", {"validation": [{"step": 5, "loss": 0.5, "accuracy": 0.9}], "steps": 5})
    write(place, "plots/loss.csv", "step,split,loss\n1,training,0.9\n5,validation,0.5\n")
    text = reports.after("train", place)
    assert text is not None
    assert "data:image/png;base64,iVBOR" in text
    test = {"n": 10, "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "macro_f1": 0.9}
    write(place, "metrics.json", {"test": test, "baseline": {"accuracy": 0.7}})
    write(place, "evaluation/confusion.csv", "actual,predicted\n$a_{b}$,x\nx,x\n")
    text = reports.after("evaluate", place)
    assert text is not None
    assert "# Evaluation: 90.0% accuracy" in text
    assert "| accuracy | 0.9 | 0.7 |" in text
    assert "data:image/png;base64,iVBOR" in text


def test_how_to_get_an_experiment_back(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    report = place.root / "brave-otter.html"
    monkeypatch.delenv(reports.REPORTS_URL, raising=False)
    text = reports.experiment_report("brave-otter", place, report)
    assert "`dvc exp apply brave-otter`" in text
    assert f"`{report}`" in text
    assert "file:" not in text  # a link that no browser follows from a page
    monkeypatch.setenv(reports.REPORTS_URL, "http://127.0.0.1:4201/")
    assert "](http://127.0.0.1:4201/brave-otter.html)" in reports.experiment_report("brave-otter", place, report)


def test_the_last_experiment_is_one_with_figures_and_none_of_dvcs_own_refs(place: Workplace) -> None:
    root = place.root

    def git(*arguments: str, day: int = 1) -> str:
        who = {f"GIT_{role}_{what}": "t@t" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        when = {f"GIT_{role}_DATE": f"2026-01-{day:02}T00:00:00" for role in ("AUTHOR", "COMMITTER")}
        done = subprocess.run(["git", *arguments], cwd=root, env={**os.environ, **who, **when}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(day: int, ref: str, metrics: str | None) -> None:
        files = {"metrics.json": metrics} if metrics else {"other": ""}
        for name, content in files.items():
            write(place, name, content)
        git("add", "-A")
        git("commit", "-q", "--allow-empty", "-m", ref, day=day)
        git("update-ref", ref, "HEAD")
        git("rm", "-rqf", ".")
        (root / "reports").mkdir(exist_ok=True)

    git("init", "-q")
    assert reports.last_experiment(root) == ("", None)
    base = f"refs/exps/ab/{'c' * 38}"
    good = json.dumps({"test": {"accuracy": 0.9}})
    commit(1, f"{base}/older", json.dumps({"test": {"accuracy": 0.8}}))
    commit(2, f"{base}/wanted", good)
    commit(3, f"{base}/without", None)
    commit(4, f"{base}/damaged", "{not json")
    commit(5, f"{base}/a-list", "[1]")
    for day, name in enumerate(("exec/EXEC_HEAD", "celery/stash", "stash", "celery/failed", "tempdir", "x/y"), 6):
        commit(day, f"refs/exps/{name}", good)
    assert reports.last_experiment(root) == ("wanted", {"accuracy": 0.9})
