"""Labels to class ids and back: one label a row, or several.

Classes are declared in params.yaml or found in the data and sorted (numerically where all are integers), so that the ids do not
depend on the order of the rows. An unknown label is always an error that names it: it is never given an id of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dagobert.errors import LabelError

SINGLE: Literal["single_label_classification"] = "single_label_classification"
MULTI: Literal["multi_label_classification"] = "multi_label_classification"


@dataclass(frozen=True)
class LabelMap:
    """The classes of a run, in id order.

    Attributes:
        problem_type: as in the model's config.json.
        classes: labels as they stand in the data.
        names: what the model says, one for each class.
    """

    problem_type: str
    classes: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def id2label(self) -> dict[int, str]:
        """For the model's config.json."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """For the model's config.json."""
        return {name: i for i, name in enumerate(self.names)}

    @property
    def multi(self) -> bool:
        """Whether a row may have several labels, or none."""
        return self.problem_type == MULTI

    def encode(self, labels: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
        """Labels as in the data to ids: strings (N,) to int32 (N,), null where the label is unknown or null.

        Lists of strings are encoded by their flattened values.
        """
        return pc.index_in(labels, value_set=pa.array(self.classes, labels.type)).cast(pa.int32())

    def encode_known(self, labels: Sequence[str | None], where: Sequence[str]) -> npt.NDArray[np.int32]:
        """Labels to ids, for data that comes after training. Shapes: (N,), (N,) to (N,).

        Args:
            labels: as in the data, or names of classes.
            where: what to call each row in an error, such as file:line.
        Raises:
            LabelError: names the first label that is not a class, and its place.
        """
        known = {label: i for i, label in enumerate(self.classes)}
        known |= {name: i for i, name in enumerate(self.names) if name not in known}
        for label, place in zip(labels, where, strict=True):
            if label not in known:
                raise LabelError(
                    f"{place}: label {label!r} is not one of {quoted(self.classes)}, which the model was trained on. "
                    f"Fix the row, or train again with data that has this label."
                )
        return np.array([known[label] for label in labels if label is not None], dtype=np.int32)

    def decode(self, ids: Sequence[int] | npt.NDArray[Any]) -> list[str]:
        """Class ids to names."""
        return [self.names[int(i)] for i in ids]

    def to_json(self, counts: Sequence[int]) -> dict[str, Any]:
        """What `data/labels.json` holds; `counts` are rows of each class."""
        return {
            "problem_type": self.problem_type,
            "classes": list(self.classes),
            "names": list(self.names),
            "counts": [int(n) for n in counts],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LabelMap:
        """Read what `to_json` wrote (counts are left aside)."""
        return cls(str(value["problem_type"]), tuple(value["classes"]), tuple(value["names"]))


def found_classes(labels: Sequence[str]) -> tuple[str, ...]:
    """The distinct labels in an order that the rows do not decide: by number where all are integers, else by code point."""
    distinct = set(labels)
    if all(re.fullmatch(r"-?\d{1,18}", label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(sorted(distinct))


def label_map(
    counts: Mapping[str, int], declared: Sequence[str] | None, names: Mapping[str, str], multi: bool = False
) -> LabelMap:
    """Make the label map of a run.

    Args:
        counts: how often each label stands in the data.
        declared: labels in id order; None: those found.
        names: what to call a label, {label: name}; others keep their label.
        multi: whether a row may have several labels.
    Raises:
        LabelError: fewer than two classes, a class twice, or two classes of one name.
    """
    classes = found_classes(list(counts)) if declared is None else tuple(declared)
    if len(set(classes)) < len(classes):
        twice = sorted({label for label in classes if classes.count(label) > 1})
        raise LabelError(f"labels.classes holds {quoted(twice)} more than once. Name each label once.")
    if len(classes) < 2:
        whose = "the data has" if declared is None else "labels.classes has"
        raise LabelError(
            f"{whose} {'one class only: ' + quoted(classes) if classes else 'no label at all'}. A classifier needs two or "
            f"more: check data.label and data.where in params.yaml."
        )
    present = [label for label in classes if counts.get(label, 0)]
    if len(present) < 2:
        raise LabelError(
            f"of the declared classes ({quoted(classes)}) the data has {quoted(present) or 'none'} only. A classifier needs "
            f"rows of two or more: check data.label, data.where and labels.classes in params.yaml."
        )
    said = tuple(names.get(label, label) for label in classes)
    if len(set(said)) < len(said):
        twice = sorted({name for name in said if said.count(name) > 1})
        raise LabelError(f"labels.names gives {quoted(twice)} to more than one class. Each class needs a name of its own.")
    return LabelMap(MULTI if multi else SINGLE, classes, said)


def unknown_label(label: str | None, place: str, known: Sequence[str]) -> LabelError:
    """The error for a label outside the declared classes."""
    return LabelError(
        f"{place}: label {label!r} is not one of {quoted(known)}. Add it under labels.classes in params.yaml, or fix the row."
    )


def split_labels(labels: pa.Array | pa.ChunkedArray, separator: str) -> pa.Array:
    """`a; b` to [a, b]: strings (N,) to lists (N,), white space around a label gone, empty and repeated labels left out."""
    lists = [
        list(dict.fromkeys(part for part in (piece.strip() for piece in (text or "").split(separator)) if part))
        for text in labels.to_pylist()
    ]
    return pa.array(lists, pa.list_(pa.string()))


def class_weights(counts: Sequence[int] | npt.NDArray[Any]) -> list[float]:
    """Weights that give each class the same say in the loss: n / (classes · count), as scikit-learn's "balanced".

    A class without rows weighs 0.
    """
    n = np.asarray(counts, dtype=np.float64)
    balanced = np.divide(n.sum(), len(n) * n, out=np.zeros_like(n), where=n > 0)
    return [round(float(w), 6) for w in balanced]


def quoted(labels: Sequence[str], most: int = 20) -> str:
    """Labels for an error message."""
    shown = ", ".join(map(repr, labels[:most]))
    return shown if len(labels) <= most else f"{shown} and {len(labels) - most} more"
