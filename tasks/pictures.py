"""Loss curve and confusion matrix as small PNGs for artifacts, drawn from the plot data that stages leave."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLASSES = 30  # a confusion matrix of more cannot be read


def loss_curve(path: Path) -> bytes | None:
    """The losses of `step,split,loss` rows; None when there are none."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in _rows(path):
        curves.setdefault(row["split"], []).append((float(row["step"]), float(row["loss"])))
    if not curves:
        return None
    figure, axes = _figure(6.4, 3.6)
    for name, points in curves.items():
        steps, losses = zip(*points, strict=True)
        axes.plot(steps, losses, marker="o" if len(points) < 30 else None, markersize=4, label=name)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return _png(figure)


def confusion(path: Path) -> bytes | None:
    """Counts of (actual, predicted) rows; None when there are none or too many classes."""
    counts = Counter((row["actual"], row["predicted"]) for row in _rows(path))
    names = sorted({name for pair in counts for name in pair})
    if not names or len(names) > MOST_CLASSES:
        return None
    figure, axes = _figure(1.8 + 0.55 * len(names), 1.5 + 0.5 * len(names))
    grid = [[counts[actual, predicted] for predicted in names] for actual in names]
    axes.imshow(grid, cmap="Blues")
    most = max(map(max, grid))
    for i, row in enumerate(grid):
        for j, count in enumerate(row):
            axes.text(j, i, f"{count:,}", ha="center", va="center", color="white" if count > most / 2 else "black", fontsize=8)
    labels = [name.replace("$", r"\$")[:20] for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=90 if len(names) > 4 else 0)
    axes.set_yticks(range(len(names)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    return _png(figure)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
