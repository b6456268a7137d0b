"""The figures as CSV files for DVC's plots and for anyone's spreadsheet: one file a picture, one row a point.

`dvc.yaml` names each file's axes and titles; `dvc plots diff` lays two runs over one another.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagobert import curves, plots
from dagobert.evaluation import Evaluation, confused_pairs
from dagobert.metrics import per_class_json
from dagobert.tables import write_csv

IntArray = NDArray[np.int64]


def write_all(directory: Path, e: Evaluation, lengths: IntArray) -> None:
    """Fill an empty directory.

    Args:
        directory: where the files go.
        e: the judged model.
        lengths: tokens of every text before truncation, shape (rows,).
    """
    names = e.names
    write_csv(directory / "confusion.csv", ("actual", "predicted"), _confusion(e))
    roc, pr = [], []
    for c in curves.drawn_classes(e.scores.classes.support, e.scores.n, e.multi):
        swept = curves.sweep(e.rows.answers[:, c], e.p[:, c])
        x, y, _ = curves.roc(swept)
        roc += [(names[c], i, *point) for i, point in enumerate(zip(x.tolist(), y.tolist(), strict=True))]
        recall, precision, _ = curves.precision_recall(swept)
        pr += [(names[c], i, *point) for i, point in enumerate(zip(recall.tolist(), precision.tolist(), strict=True))]
    write_csv(directory / "roc.csv", ("class", "point", "false_positive_rate", "true_positive_rate"), roc)
    write_csv(directory / "precision_recall.csv", ("class", "point", "recall", "precision"), pr)
    r = e.reliability
    write_csv(
        directory / "reliability.csv",
        ("confidence", "accuracy", "rows"),
        ((r.confidence[i], r.accuracy[i], int(r.count[i])) for i in np.flatnonzero(r.count)),
    )
    _, share, accuracy = curves.coverage(e.correct, e.confidence)
    write_csv(
        directory / "coverage.csv",
        ("point", "share_answered", "accuracy"),
        ((i, *point) for i, point in enumerate(zip(share.tolist(), accuracy.tolist(), strict=True))),
    )
    keys = ("support", "precision", "recall", "f1", "f1_low", "f1_high")
    classes = []
    for model, scores in (("model", e.scores), ("baseline", e.baseline_scores)):
        for name, found in ({} if scores is None else per_class_json(scores, names)).items():
            classes.append((model, name, *("" if found[key] is None else found[key] for key in keys)))
    write_csv(directory / "classes.csv", ("model", "class", *keys), classes)
    edges, rows = plots.length_bins(lengths)
    write_csv(directory / "lengths.csv", ("tokens", "rows"), ((int(t), int(n)) for t, n in zip(edges[:-1], rows, strict=True)))


def _confusion(e: Evaluation) -> Iterator[tuple[str, str]]:
    """One line an example, in no order of the rows: what DVC counts for its matrix."""
    names = (*e.names, "none")
    matrix = confused_pairs(e)
    for a, p in zip(*np.nonzero(matrix), strict=True):
        yield from ((names[a], names[p]) for _ in range(matrix[a, p]))
