"""Two models on the same held-out rows: rows that neither has trained on or been chosen by, judged by a paired test.

When data is appended, the split of the new data may put rows the old model was trained on into the new test side. Those would
flatter it, so the texts of its training and validation sides are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dagobert.significance import compare_correct

if TYPE_CHECKING:
    from dagobert.prediction import Predictor

_RESAMPLES = 10_000


def rows_of(clean: Path, splits: Path, sides: tuple[str, ...], columns: list[str]) -> pa.Table:
    """The given columns of the rows on these sides, in file order."""
    split = pq.read_table(splits, columns=["row_id", "split"])
    wanted = split["row_id"].filter(pc.is_in(split["split"].cast(pa.string()), value_set=pa.array(sides)))
    return pq.read_table(clean, columns=columns, filters=pc.field("row_id").isin(wanted.combine_chunks()))


def held_out(clean: Path, splits: Path, seen: tuple[Path, Path] | None) -> pa.Table:
    """Columns text, label of the test rows whose text the other model never saw.

    Args:
        seen: clean.parquet and splits.parquet of the other model; None: it saw none of these rows.
    """
    rows = rows_of(clean, splits, ("test",), ["text", "label"])
    if seen is None:
        return rows
    known = rows_of(*seen, ("train", "validation"), ["text"])["text"]
    return rows.filter(pc.invert(pc.is_in(rows["text"], value_set=known.combine_chunks())))


def compare(candidate: Predictor, incumbent: Predictor, rows: pa.Table, level: float = 0.95) -> dict[str, Any]:
    """Accuracy of both models on the rows and their paired difference (candidate less incumbent)."""
    right = [_right(model, rows) for model in (candidate, incumbent)]
    outcome = compare_correct(right[0], right[1], level=level, resamples=_RESAMPLES).as_json()
    accuracies = [round(float(r.mean()), 6) if len(r) else None for r in right]
    return {"candidate_accuracy": accuracies[0], "incumbent_accuracy": accuracies[1], **outcome}


def _right(model: Predictor, rows: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether the model names the label of each row; a class it does not know is never right."""
    if not rows.num_rows:
        return np.zeros(0, dtype=bool)
    said, _ = model.answers(model.probabilities(rows["text"]))
    called = dict(zip(model.labels.classes, model.labels.names, strict=True))
    return np.array([called.get(label) == answer for label, answer in zip(rows["label"].to_pylist(), said, strict=True)])
