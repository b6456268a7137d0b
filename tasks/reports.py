"""What a stage left, as Markdown for people. Pure: files in, text out; a report that is not there gives no text.

Reads the JSON and CSV files of `reports/` by name and takes the figures it finds, so that an older commit shows what it has.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks import dvc, markdown, pictures
from tasks.errors import WorkplaceError
from tasks.workplace import Workplace

EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/.+")  # DVC's queue and stashes lie beside them
REPORTS_URL = "DAGOBERT_REPORTS_URL"  # the environment of a run: where the copies of reports can be opened, if anywhere
_MOST_CLASSES = 50
_SIDES = ("train", "validation", "test", "unused")
_FIGURES = ("accuracy", "macro_f1", "macro_precision", "macro_recall", "log_loss", "ece")


def after(stage: str, place: Workplace) -> str | None:
    """The report to show when a stage is up to date."""
    make = {"clean": data_report, "split": split_report, "train": training_report, "evaluate": evaluation_report}.get(stage)
    return make(place) if make else None


def data_report(place: Workplace) -> str | None:
    """Rows in, out and quarantined with reasons, and the labels."""
    report = _json(place.root / "reports/data.json")
    if report is None:
        return None
    names = {"rows_read": "read", "rows_not_selected": "not selected", "rows_quarantined": "quarantined", "rows_out": "kept"}
    parts = [
        "# Data",
        markdown.table(["rows", "count"], [(shown, report[key]) for key, shown in names.items() if key in report]),
    ]
    if reasons := report.get("quarantined_by_reason"):
        parts += ["## Quarantined", markdown.table(["reason", "rows"], _by_count(reasons))]
    if labels := report.get("labels"):
        parts += ["## Labels", markdown.table(["label", "rows"], _by_count(labels)[:_MOST_CLASSES])]
    return "\n\n".join(parts)


def split_report(place: Workplace) -> str | None:
    """Rows of each class on each side."""
    report = _json(place.root / "reports/split.json")
    if report is None:
        return None
    sizes = report.get("sizes", {})
    sides = [side for side in _SIDES if side in sizes]
    parts = ["# Split", markdown.table(["side", "rows"], [(side, sizes[side]) for side in sides])]
    classes: dict[str, dict[str, int]] = report.get("classes", {})
    if classes:
        rows = [(name, *(counts.get(side, 0) for side in sides)) for name, counts in list(classes.items())[:_MOST_CLASSES]]
        parts += ["## Classes", markdown.table(["class", *sides], rows)]
    for warning in report.get("warnings", []):
        parts.append(f"⚠ {markdown.text(warning)}")
    return "\n\n".join(parts)


def training_report(place: Workplace) -> str | None:
    """The loss curve and what validation said."""
    report = _json(place.root / "reports/train.json")
    if report is None:
        return None
    parts = ["# Training"]
    if picture := pictures.loss_curve(place.root / "reports/plots/loss.csv"):
        parts.append(markdown.image(picture, "loss curve"))
    rows = [row for row in report.get("validation", []) if isinstance(row, dict)]
    if rows:
        head = [key for key in rows[0] if isinstance(rows[0][key], int | float)]
        parts += ["## Validation", markdown.table(head, [[row.get(key, "") for key in head] for row in rows])]
    facts = [(key, report[key]) for key in ("best_step", "steps", "examples", "tokens", "device", "precision") if key in report]
    return "\n\n".join([*parts, markdown.table(["", ""], [(k.replace("_", " "), v) for k, v in facts])])


def evaluation_report(place: Workplace) -> str | None:
    """Figures on the test rows beside the baseline's and those of the experiment recorded last, and the confusion matrix."""
    report = _json(place.root / "reports/metrics.json")
    if report is None or "test" not in report:
        return None
    last_name, last = last_experiment(place.origin)
    columns = {"test": report["test"], "baseline": report.get("baseline"), last_name: last}
    columns = {name: values for name, values in columns.items() if isinstance(values, dict)}
    figures = [figure for figure in _FIGURES if figure in report["test"]]
    rows = [(figure.replace("_", " "), *(values.get(figure, "–") for values in columns.values())) for figure in figures]
    head = [{"test": "this model", "baseline": "TF-IDF baseline"}.get(name, f"last: {markdown.text(name)}") for name in columns]
    test = report["test"]
    parts = [f"# Evaluation: {markdown.share(test.get('accuracy'))} accuracy"]
    if "accuracy_low" in test and "accuracy_high" in test:
        low, high = markdown.share(test["accuracy_low"]), markdown.share(test["accuracy_high"])
        parts.append(f"between {low} and {high}, on {test.get('n', 0):,} rows the model never saw")
    parts.append(markdown.table(["", *head], rows))
    if picture := pictures.confusion(place.root / "reports/evaluation/confusion.csv"):
        parts += ["## Confusion", markdown.image(picture, "confusion matrix")]
    return "\n\n".join(parts)


def last_experiment(origin: Path) -> tuple[str, dict[str, Any] | None]:
    """Name and test figures of the experiment recorded last; one without figures is passed over."""
    with suppress(WorkplaceError):
        for ref in dvc.git(origin, "for-each-ref", "--sort=-committerdate", "--format=%(refname)", "refs/exps/").split():
            if EXPERIMENT.fullmatch(ref) and (figures := _figures(origin, ref)):
                return ref.rsplit("/", 1)[-1], figures
    return "", None


def _figures(origin: Path, ref: str) -> dict[str, Any] | None:
    try:
        found = json.loads(dvc.git(origin, "show", f"{ref}:reports/metrics.json"))
        test = found["test"]
    except (WorkplaceError, ValueError, KeyError, TypeError):
        return None
    return test if isinstance(test, dict) else None


def experiment_report(name: str, place: Workplace, report: Path | None) -> str:
    """The experiment's name, and how to get it back."""
    lines = [
        f"# Experiment {markdown.text(name)}",
        f"Made from commit `{str(place.revision)[:10]}` of `{place.origin}`. In that directory:",
        "| | |\n| --- | --- |",
    ]
    commands = {
        "get everything back": f"dvc exp apply {name}",
        "a branch of it": f"dvc exp branch {name} BRANCH",
        "the model alone": f"dvc get . models/finetuned --rev {name}",
        "compare": f"dvc exp diff HEAD {name}",
        "all experiments": "dvc exp show --all-commits",
    }
    lines[-1] += "".join(f"\n| {what} | `{command}` |" for what, command in commands.items())
    if report is not None:
        lines.append(f"The report: {_where(report)}")
    return "\n\n".join(lines)


def _where(report: Path) -> str:
    """A link where `make serve` shows reports, else the path: browsers open no file from a page."""
    if url := os.environ.get(REPORTS_URL):
        return f"[{markdown.text(report.name)}]({url.rstrip('/')}/{quote(report.name)})"
    return f"`{report}` on the machine that ran this."


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _by_count(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
