"""How two versions of a file differ, told by what the file holds: rows, tensors, values, lines, and only then bytes.

Used where two hashes differ and a person asks "how?". Each kind of file has one function that returns sentences, the most
telling one first; a file that cannot be read as what its name says falls back to bytes, because damage must be told as well.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

from dagobert.lockfile import flatten

_SHOWN = 5  # values shown of a list of differences
_BLOCK = 1 << 20
_LARGE = 256 << 20  # bytes; larger files are compared as bytes: the answer must not need more memory than the stage did


def difference(recorded: Path, now: Path) -> list[str]:
    """Sentences that say how `now` differs from `recorded`; empty when the bytes are equal."""
    at = first_difference(recorded, now)
    if at is None:
        return []
    kinds: dict[str, Callable[[Path, Path], list[str]]] = {
        ".json": json_difference,
        ".parquet": table_difference,
        ".safetensors": tensor_difference,
        ".csv": line_difference,
        ".md": line_difference,
        ".txt": line_difference,
        ".html": line_difference,
        ".yaml": line_difference,
    }
    how = kinds.get(now.suffix)
    if how is not None and max(recorded.stat().st_size, now.stat().st_size) <= _LARGE:
        try:
            if found := how(recorded, now):
                return found
        except (ValueError, OSError, KeyError, IndexError, struct.error, TypeError) as error:
            return [f"one of the two cannot be read as {now.suffix} ({error})", *byte_difference(recorded, now, at)]
    return byte_difference(recorded, now, at)


def first_difference(recorded: Path, now: Path) -> int | None:
    """Offset of the first byte that differs (the shorter one's end counts as one); None when there is none."""
    at = 0
    with recorded.open("rb") as a, now.open("rb") as b:
        while True:
            left, right = a.read(_BLOCK), b.read(_BLOCK)
            if left != right:
                pairs = zip_longest(left, right)
                return at + next(i for i, (x, y) in enumerate(pairs) if x != y)
            if not left:
                return None
            at += len(left)


def byte_difference(recorded: Path, now: Path, at: int) -> list[str]:
    """Sizes and the first byte that differs."""
    before, after = recorded.stat().st_size, now.stat().st_size
    size = f"{before:,} bytes" if before == after else f"{before:,} bytes recorded, {after:,} now"
    return [f"{size}; the first byte that differs is number {at:,}"]


def json_difference(recorded: Path, now: Path) -> list[str]:
    """Values that differ, by dotted name."""
    before, after = (flatten(json.loads(path.read_text(encoding="utf-8"))) for path in (recorded, now))
    changed = [name for name in before | after if before.get(name, ...) != after.get(name, ...)]
    if not changed:
        return ["the same values, written otherwise"]
    shown = [f"{name}: {_value(before, name)} → {_value(after, name)}" for name in changed[:_SHOWN]]
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    return [f"{'1 value differs' if len(changed) == 1 else f'{len(changed)} values differ'}: {'; '.join(shown)}{more}"]


def line_difference(recorded: Path, now: Path) -> list[str]:
    """Number of lines, and the first that differs."""
    before, after = (path.read_bytes().splitlines() for path in (recorded, now))
    for number, (left, right) in enumerate(zip_longest(before, after), start=1):
        if left != right:
            count = (
                f"{len(before):,} lines" if len(before) == len(after) else f"{len(before):,} lines recorded, {len(after):,} now"
            )
            return [f"{count}; the first that differs is line {number:,}: {_line(left)} → {_line(right)}"]
    return ["the same lines, ended otherwise"]


def table_difference(recorded: Path, now: Path) -> list[str]:
    """Columns, number of rows, and the first row that differs."""
    import pyarrow.parquet as pq

    before, after = pq.read_table(recorded), pq.read_table(now)
    sentences = []
    if before.schema.names != after.schema.names:
        sentences.append(f"columns {', '.join(before.schema.names)} → {', '.join(after.schema.names)}")
    if before.num_rows != after.num_rows:
        sentences.append(f"{before.num_rows:,} rows recorded, {after.num_rows:,} now")
    shared = [name for name in before.schema.names if name in after.schema.names]
    rows = min(before.num_rows, after.num_rows)
    firsts = {name: _first_row(before[name][:rows], after[name][:rows]) for name in shared}
    differing = {name: first for name, first in firsts.items() if first is not None}
    if differing:
        row = min(differing.values())
        names = [name for name in shared if differing.get(name) == row]
        key = f" (row_id {before['row_id'][row].as_py()})" if "row_id" in shared else ""
        changes = "; ".join(f"{n}: {_short(before[n][row].as_py())} → {_short(after[n][row].as_py())}" for n in names[:_SHOWN])
        sentences.append(f"the first row that differs is number {row:,}{key}: {changes}")
    elif before.num_rows != after.num_rows:
        sentences.append(f"the first {rows:,} rows are equal")
    if not sentences and before.schema.metadata != after.schema.metadata:
        sentences.append("the same rows, other metadata")
    if not sentences:
        writers = [pq.ParquetFile(path).metadata.created_by for path in (recorded, now)]
        by = f" (written by {writers[0]}, now by {writers[1]})" if writers[0] != writers[1] else ""
        sentences.append(f"the same rows, written otherwise{by}")
    return sentences


def tensor_difference(recorded: Path, now: Path) -> list[str]:
    """Tensors that differ, the first one's name, and how far apart their values are."""
    import numpy as np

    before, after = _tensors(recorded), _tensors(now)
    sentences = []
    if missing := [name for name in before if name not in after]:
        sentences.append(f"{len(missing)} tensors are gone, first {missing[0]}")
    if new := [name for name in after if name not in before]:
        sentences.append(f"{len(new)} tensors are new, first {new[0]}")
    shared = [name for name in before if name in after]
    changed = [name for name in shared if before[name] != after[name]]
    if changed:
        name = changed[0]
        (kind, shape, left), (kind_now, shape_now, right) = before[name], after[name]
        text = f"{len(changed)} of {len(shared)} tensors differ, first {name}"
        if (kind, shape) != (kind_now, shape_now):
            text += f": {kind}{shape} → {kind_now}{shape_now}"
        elif kind in _FLOATS:
            apart = np.abs(_floats(kind, left) - _floats(kind, right))
            largest = float(np.nanmax(apart)) if apart.size and not np.isnan(apart).all() else math.nan
            text += f": largest difference {largest:.3g}"
        sentences.append(text)
    return sentences or ["the same tensors, written otherwise"]


_FLOATS = ("F64", "F32", "F16", "BF16")


def _tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """A safetensors file as {name: (dtype, shape, bytes)}, in the order of their bytes."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    body = memoryview(content)[8 + length :]
    ordered = sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0]))
    return {
        name: (facts["dtype"], tuple(facts["shape"]), bytes(body[slice(*facts["data_offsets"])])) for name, facts in ordered
    }


def _floats(kind: str, content: bytes) -> Any:
    import numpy as np

    if kind == "BF16":  # the upper half of a float32
        return (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    dtype = {"F64": np.float64, "F32": np.float32, "F16": np.float16}[kind]
    return np.frombuffer(content, dtype).astype(np.float64)


def _first_row(left: Any, right: Any) -> int | None:
    """Index of the first row in which two columns differ (nulls count as values)."""
    if left.type == right.type and left.equals(right):
        return None
    step = 4096
    for start in range(0, len(left), step):
        a, b = left[start : start + step].to_pylist(), right[start : start + step].to_pylist()
        if a != b:
            for row, (x, y) in enumerate(zip(a, b, strict=True)):
                if x != y and not (x is None and y is None):
                    return start + row
    return None


def _value(values: dict[str, Any], name: str) -> str:
    return _short(values[name]) if name in values else "nothing"


def _line(line: bytes | None) -> str:
    return "nothing" if line is None else _short(line.decode(errors="replace"))


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:56]}…{text[-1]}"
