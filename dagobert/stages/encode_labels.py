"""Stage `encode-labels`: the labels of clean.parquet to class ids, in two streamed passes (count, then encode)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dagobert import events, files, labels
from dagobert.params import Params
from dagobert.parquet import stream
from dagobert.stages import paths

OUTPUTS: tuple[Path, ...] = (paths.LABELS, paths.LABEL_MAP)
_BATCH = 65_536


def inputs(params: Params) -> list[Path]:
    """Files and directories the stage reads."""
    return [paths.CLEAN]


def run(params: Params) -> None:
    """Read the labels, write their ids and the label map."""
    ours = params.labels
    found = encode_file(paths.CLEAN, paths.LABELS, paths.LABEL_MAP, ours.classes, ours.names, ours.separator)
    strangers = [label for label in ours.names if label not in found.classes]
    if strangers:
        events.warn(f"labels.names names {labels.quoted(strangers)}, which the data does not have; classes: {_said(found)}")


def encode_file(
    clean: Path,
    out: Path,
    map_out: Path,
    declared: tuple[str, ...] | None,
    names: dict[str, str],
    separator: str | None,
) -> labels.LabelMap:
    """Write labels.parquet and labels.json for one clean.parquet.

    Raises:
        LabelError: a label outside the declared classes (file, line and label), or too few classes.
    """
    counts = count_labels(clean, separator)
    multi = separator is not None or is_multi(clean)
    made = labels.label_map(counts, declared, names, multi)
    per_class = [counts.get(label, 0) for label in made.classes]
    column = pa.field("label_ids", pa.list_(pa.int32())) if multi else pa.field("label_id", pa.int32())
    schema = pa.schema([pa.field("row_id", pa.int64()), column])
    with files.atomic_file(out) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for batch in stream(clean, ("row_id", "label", "source_file", "source_line"), _BATCH):
            values = labels.split_labels(batch["label"], separator) if separator is not None else batch["label"]
            _refuse_unknown(batch, values, made)
            flat = values.flatten() if multi else values
            ids = made.encode(flat)
            if multi:
                ids = pa.ListArray.from_arrays(_offsets(values), ids)
            writer.write_table(pa.table([batch["row_id"], ids], schema=schema))
    files.write_json(map_out, made.to_json(per_class))
    empty = [name for name, n in zip(made.names, per_class, strict=True) if n == 0]
    if empty:
        events.warn(f"no row has the declared {'class' if len(empty) == 1 else 'classes'} {labels.quoted(empty)}")
    events.say(f"{len(made.classes)} classes: " + ", ".join(f"{a} {n:,}" for a, n in zip(made.names, per_class, strict=True)))
    return made


def is_multi(clean: Path) -> bool:
    """Whether the label column holds lists."""
    return bool(pa.types.is_list(pq.read_schema(clean).field("label").type))


def count_labels(clean: Path, separator: str | None) -> dict[str, int]:
    """How often each label stands in the file."""
    counts: Counter[str] = Counter()
    for batch in stream(clean, ("label",), _BATCH):
        values = labels.split_labels(batch["label"], separator) if separator is not None else batch["label"]
        if pa.types.is_list(values.type):
            values = values.flatten()
        for item in pc.value_counts(values.cast(pa.string())).to_pylist():
            if item["values"] is not None:
                counts[item["values"]] += item["counts"]
    return dict(counts)


def _said(found: labels.LabelMap) -> str:
    return labels.quoted(found.classes)


def _offsets(values: pa.Array) -> npt.NDArray[np.int32]:
    offsets = values.offsets.to_numpy()
    shifted: npt.NDArray[np.int32] = offsets - offsets[0]
    return shifted


def _refuse_unknown(batch: pa.RecordBatch, values: pa.Array, made: labels.LabelMap) -> None:
    multi = pa.types.is_list(values.type)
    flat = values.flatten() if multi else values
    unknown = pc.is_null(made.encode(flat)).to_numpy(zero_copy_only=False)
    if not unknown.any():
        return
    at = int(np.argmax(unknown))
    row = pc.list_parent_indices(values)[at].as_py() if multi else at
    if "source_file" in batch.schema.names:
        place = f"{batch['source_file'][row].as_py()}:{batch['source_line'][row].as_py()}"
    else:
        place = f"row_id {batch['row_id'][row].as_py()}"
    raise labels.unknown_label(flat[at].as_py(), place, made.classes)
