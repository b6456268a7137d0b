"""The plots that dvc.yaml names: their files and columns exist, and every template draws."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dagobert import plot_data
from dagobert.stages import paths
from tests.unit.test_report import make, story


@pytest.fixture(scope="module")
def plots(repository: Path) -> dict[str, Any]:
    entries = YAML(typ="safe", pure=True).load((repository / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    return {name: plot for entry in entries for name, plot in entry.items()}


def written(directory: Path, n_classes: int, multi: bool) -> dict[str, list[dict[str, str]]]:
    """{path in the repository: rows} of the files that the plots read."""
    plot_data.write_all(directory, make(n_classes, multi=multi), story().tokens.lengths)
    found = {}
    for path in sorted(directory.iterdir()):
        with path.open(encoding="utf-8", newline="") as file:
            found[(paths.PLOTS / path.name).as_posix()] = list(csv.DictReader(file))
    found[paths.LOSS_CURVE.as_posix()] = [{"step": "1", "split": "training", "loss": "0.7"}]
    return found


@pytest.mark.parametrize(("n_classes", "multi"), [(2, False), (3, False), (3, True)])
def test_axes_are_columns_and_everything_is_named(plots: dict[str, Any], tmp_path: Path, n_classes: int, multi: bool) -> None:
    found = written(tmp_path, n_classes, multi)
    for name, plot in plots.items():
        ((path, column),) = plot["y"].items()
        assert found[path], path
        assert {plot["x"], column} <= found[path][0].keys(), name
        assert all(plot[key] for key in ("title", "x_label", "y_label")), name


def test_every_template_draws(repository: Path, plots: dict[str, Any], tmp_path: Path) -> None:
    vl_convert = pytest.importorskip("vl_convert")
    found = written(tmp_path, 3, False)
    for name, plot in plots.items():
        ((path, column),) = plot["y"].items()
        values = [row | {"rev": rev} for rev in ("HEAD", "workspace") for row in found[path]]
        text = (repository / ".dvc" / "plots" / f"{plot['template']}.json").read_text(encoding="utf-8")
        fillings = {"x": plot["x"], "y": column, "title": name, "x_label": plot["x_label"], "y_label": plot["y_label"]}
        for anchor, value in fillings.items():
            text = text.replace(f"<DVC_METRIC_{anchor.upper()}>", value)
        assert text.count("<DVC_METRIC_") == text.count("<DVC_METRIC_DATA>") == 1
        spec = json.loads(text)
        spec["data"]["values"] = values
        svg = vl_convert.vegalite_to_svg(json.dumps(spec), vl_version="5.21")
        assert plot["y_label"] in svg
        assert "NaN" not in svg, name
