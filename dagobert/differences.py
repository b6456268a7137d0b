"""How two versions of a file differ, told by what the file holds: rows, tensors, values, lines, and only then bytes.

Used where two hashes differ and a person asks "how?". Each kind of file has one function that returns sentences, the most
telling one first; a file that cannot be read as what its name says falls back to bytes, because damage must be told as well.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from dagobert.lockfile import flatten

_SHOWN = 5  # values shown of a list of differences
_BLOCK = 1 << 20
_PIECE = 4 << 20  # bytes of a tensor that are compared at a time; a multiple of every element's size
_ROWS = 4096  # rows of a table that are compared at a time
_LARGE = 256 << 20  # bytes; larger text is compared as bytes: the answer must not need more memory than the stage did


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
    streamed = how in (table_difference, tensor_difference)
    if how is not None and (streamed or max(recorded.stat().st_size, now.stat().st_size) <= _LARGE):
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
    """Columns, number of rows, and the first row that differs; a few thousand rows are read at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(recorded, pre_buffer=False) as before, pq.ParquetFile(now, pre_buffer=False) as after:
        old, new = before.schema_arrow, after.schema_arrow
        counts = before.metadata.num_rows, after.metadata.num_rows
        sentences = []
        if old.names != new.names:
            sentences.append(f"columns {', '.join(old.names)} → {', '.join(new.names)}")
        if counts[0] != counts[1]:
            sentences.append(f"{counts[0]:,} rows recorded, {counts[1]:,} now")
        if row := _first_row(before, after, [name for name in old.names if name in new.names]):
            sentences.append(row)
        elif counts[0] != counts[1]:
            sentences.append(f"the first {min(counts):,} rows are equal")
        if not sentences and old.metadata != new.metadata:
            sentences.append("the same rows, other metadata")
        if not sentences:
            writers = before.metadata.created_by, after.metadata.created_by
            by = f" (written by {writers[0]}, now by {writers[1]})" if writers[0] != writers[1] else ""
            sentences.append(f"the same rows, written otherwise{by}")
        return sentences


def _first_row(before: Any, after: Any, shared: list[str]) -> str | None:
    """The first row in which two Parquet files differ in the columns they share, with its values there."""
    if not shared:
        return None
    start = 0
    for left, right in _side_by_side(*(file.iter_batches(_ROWS, columns=shared) for file in (before, after))):
        firsts = {name: _first_value(left[name], right[name]) for name in shared}
        if at := [first for first in firsts.values() if first is not None]:
            row = min(at)
            names = [name for name in shared if firsts[name] == row]
            key = f" (row_id {left['row_id'][row].as_py()})" if "row_id" in shared else ""
            changes = "; ".join(
                f"{n}: {_short(left[n][row].as_py())} → {_short(right[n][row].as_py())}" for n in names[:_SHOWN]
            )
            return f"the first row that differs is number {start + row:,}{key}: {changes}"
        start += left.num_rows
    return None


def _side_by_side(lefts: Iterator[Any], rights: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """Batches of the same rows of two files, however each was cut, up to the end of the shorter one."""
    left = right = None
    while True:
        left = left if left is not None and left.num_rows else next(lefts, None)
        right = right if right is not None and right.num_rows else next(rights, None)
        if left is None or right is None:
            return
        rows = min(left.num_rows, right.num_rows)
        yield left.slice(0, rows), right.slice(0, rows)
        left, right = left.slice(rows), right.slice(rows)


def _first_value(left: Any, right: Any) -> int | None:
    """Index of the first value in which two columns of a batch differ (nulls count as values, NaN equals NaN)."""
    if left.type == right.type and left.equals(right):
        return None
    pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
    return next((row for row, (x, y) in enumerate(pairs) if x != y and (x == x or y == y)), None)


def tensor_difference(recorded: Path, now: Path) -> list[str]:
    """Tensors that differ, the first one's name, and how far apart its values are; a piece of a tensor is read at a time."""
    before, after = _tensors(recorded), _tensors(now)
    sentences = []
    if missing := [name for name in before if name not in after]:
        sentences.append(f"{len(missing)} tensors are gone, first {missing[0]}")
    if new := [name for name in after if name not in before]:
        sentences.append(f"{len(new)} tensors are new, first {new[0]}")
    shared = [name for name in before if name in after]
    changed = [name for name in shared if not before[name].equals(after[name])]
    if changed:
        old, other = before[changed[0]], after[changed[0]]
        text = f"{len(changed)} of {len(shared)} tensors differ, first {changed[0]}"
        if (old.kind, old.shape) != (other.kind, other.shape):
            text += f": {old.kind}{old.shape} → {other.kind}{other.shape}"
        elif old.kind in _FLOATS:
            text += f": largest difference {_apart(old, other):.3g}"
        sentences.append(text)
    return sentences or ["the same tensors, written otherwise"]


_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor's bytes lie in a safetensors file."""

    path: Path
    kind: str
    shape: tuple[int, ...]
    start: int
    end: int

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, a few at a time."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = self.end - self.start
            while left > 0:
                piece = file.read(min(_PIECE, left))
                if not piece:
                    raise ValueError(f"{self.path.name} ends before its last tensor does")
                left -= len(piece)
                yield piece

    def equals(self, other: _Tensor) -> bool:
        """Whether type, shape and bytes are the same."""
        alike = (self.kind, self.shape, self.end - self.start) == (other.kind, other.shape, other.end - other.start)
        return alike and all(left == right for left, right in zip(self.pieces(), other.pieces(), strict=True))


def _apart(left: _Tensor, right: _Tensor) -> float:
    """The largest difference of two values; NaN where there is no number."""
    import numpy as np

    largest = math.nan
    for old, new in zip(left.pieces(), right.pieces(), strict=True):
        apart = np.abs(_floats(left.kind, old) - _floats(right.kind, new))
        if apart.size and not np.isnan(apart).all():
            largest = float(np.nanmax([largest, np.nanmax(apart)]))
    return largest


def _tensors(path: Path) -> dict[str, _Tensor]:
    """The tensors of a safetensors file, in the order of their bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > size - 8:
            raise ValueError(f"its header is said to have {length:,} bytes, the file has {size:,}")
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    ordered = sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0]))
    found = {}
    for name, facts in ordered:
        start, end = (8 + length + int(offset) for offset in facts["data_offsets"])
        found[name] = _Tensor(path, str(facts["dtype"]), tuple(facts["shape"]), start, end)
    return found


def _floats(kind: str, content: bytes) -> Any:
    import numpy as np

    if kind == "BF16":  # the upper half of a float32
        return (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    dtype = {"F64": np.float64, "F32": np.float32, "F16": np.float16}[kind]
    return np.frombuffer(content, dtype).astype(np.float64)


def _value(values: dict[str, Any], name: str) -> str:
    return _short(values[name]) if name in values else "nothing"


def _line(line: bytes | None) -> str:
    return "nothing" if line is None else _short(line.decode(errors="replace"))


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:56]}…{text[-1]}"
