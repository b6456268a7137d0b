"""What every reader is told and what it hands back: columns, settings, parsed records, and the Arrow batch made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from dagobert.errors import RecordError

MAX_RECORD = 64 << 20  # characters in one record; a longer one is an unclosed quote or not a text file
BATCH_ROWS = 8192
BATCH_CHARS = 4 << 20

# A label that is a list comes as its items with this before each; no text that can be a label holds it.
ITEM = "\x01"

MALFORMED = "malformed_record"
UNDECODABLE = "undecodable_text"


@dataclass(frozen=True)
class Columns:
    """Which columns a reader looks for. `label` None: the file need not have one."""

    text: str
    label: str | None
    extra: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[str, ...]:
        """All of them, text first."""
        return tuple(dict.fromkeys([self.text, *([] if self.label is None else [self.label]), *self.extra]))

    def kind(self, name: str) -> str:
        """What a column is for: text, label or extra."""
        return "text" if name == self.text else "label" if name == self.label else "extra"

    def require(self, found: list[str], where: str) -> None:
        """Check that a file has the columns.

        Raises:
            RecordError: names the missing column and the ones there are.
        """
        for name in self.wanted:
            if name not in found:
                there = ", ".join(map(repr, found[:30])) + (" …" if len(found) > 30 else "")
                what = "data.text" if name == self.text else "data.label" if name == self.label else "the section data"
                raise RecordError(
                    f"{where}: there is no column {name!r}. It has: {there or 'none'}. Mend {what} in params.yaml."
                )
            if found.count(name) > 1:
                raise RecordError(f"{where}: the column {name!r} stands there {found.count(name)} times. Rename all but one.")


@dataclass(frozen=True)
class Reading:
    """How the files are written. `auto` finds out."""

    format: str = "auto"
    encoding: str = "auto"
    delimiter: str = "auto"
    quoting: str = "doubled"
    columns: tuple[str, ...] | None = None


@dataclass
class FileNote:
    """What was found out about one file."""

    name: str
    format: str
    encoding: str | None = None
    rows: int = 0


@dataclass
class Notes:
    """What was found out while reading, file by file; `on_bytes` hears how many bytes of the files were used up."""

    files: list[FileNote] = field(default_factory=list)
    on_bytes: Callable[[int], None] | None = None

    def begin(self, name: str, kind: str) -> None:
        """A new file."""
        self.files.append(FileNote(name, kind))

    def encoding(self, name: str) -> None:
        """The encoding of the current file is known."""
        if self.files:
            self.files[-1].encoding = name

    def used(self, n: int) -> None:
        """Another `n` bytes of the current file were read."""
        if self.on_bytes is not None:
            self.on_bytes(n)

    def count(self, rows: int) -> None:
        """Another batch of the current file was read."""
        self.files[-1].rows += rows


@dataclass
class Parsed:
    """Records of one file as columns of equal length, ordered as `Columns.wanted`. `problems`: position → (reason, detail)."""

    lines: list[int] | np.ndarray[Any, Any]
    values: list[list[str | None] | pa.Array]
    problems: dict[int, tuple[str, str]]


def schema(columns: Columns) -> pa.Schema:
    """Schema of the batches: row_id, source_file, source_line, text, label, problem, detail, then the extra columns."""
    fixed = ("row_id", "source_file", "source_line", "text", "label", "problem", "detail")
    kinds = (pa.int64(), pa.string(), pa.int64(), *[pa.string()] * 4)
    return pa.schema([*zip(fixed, kinds, strict=True), *((f"extra:{name}", pa.string()) for name in columns.extra)])


def to_batch(parsed: Parsed, columns: Columns, row_id: int, name: str, folder: str | None) -> pa.RecordBatch:
    """Make the Arrow batch. Text that is no text (damaged bytes, lone surrogates) becomes a problem of its row."""
    n = len(parsed.lines)
    by_name = dict(zip(columns.wanted, parsed.values, strict=False))
    problems = dict(parsed.problems)
    arrays = {key: _strings(column, problems) for key, column in by_name.items()}
    nulls = pa.nulls(n, pa.string())
    if folder is not None:
        label = pa.repeat(pa.scalar(folder), n)
    else:
        label = arrays.get(columns.label, nulls) if columns.label is not None else nulls
    problem: list[str | None] = [None] * n
    detail: list[str | None] = [None] * n
    for at, (reason, words) in problems.items():
        problem[at], detail[at] = reason, words
    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.arange(row_id, row_id + n, dtype=np.int64)),
            pa.repeat(pa.scalar(name), n),
            pa.array(parsed.lines, pa.int64()),
            arrays[columns.text],
            label,
            pa.array(problem, pa.string()) if problems else nulls,
            pa.array(detail, pa.string()) if problems else nulls,
            *(arrays.get(key, nulls) for key in columns.extra),
        ],
        schema=schema(columns),
    )


def _strings(values: list[str | None] | pa.Array, problems: dict[int, tuple[str, str]]) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        pass
    # Lone surrogates: damaged bytes come as U+DC80..DCFF (surrogateescape), others stood in a JSON escape or in UTF-16.
    good: list[str | None] = []
    for at, value in enumerate(values):
        words = undecodable(value)
        if words is not None and value is not None:
            problems.setdefault(at, (UNDECODABLE, words))
            value = value.encode("utf-8", "backslashreplace").decode()
        good.append(value)
    return pa.array(good, pa.string())


def undecodable(value: str | None) -> str | None:
    """Why a string is no text, in words; None if it is."""
    if value is None or value.isascii():
        return None
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"half a character (U+{code:04X})"
        return f"{what} at character {error.start + 1} cannot be decoded"
    return None


class Collector:
    """Gathers records until a batch is full."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._reset()

    def _reset(self) -> None:
        self.lines: list[int] = []
        self.rows: list[tuple[str | None, ...]] = []
        self.problems: dict[int, tuple[str, str]] = {}
        self.chars = 0

    def add(self, line: int, values: tuple[str | None, ...], chars: int) -> None:
        """One record that could be read."""
        self.lines.append(line)
        self.rows.append(values)
        self.chars += chars

    def bad(self, line: int, raw: str, reason: str, detail: str) -> None:
        """One record that could not; `raw` is kept in the place of the text."""
        self.problems[len(self.lines)] = (reason, detail)
        self.add(line, (raw, *[None] * (self.width - 1)), len(raw))

    @property
    def full(self) -> bool:
        """Whether it is time to `take`."""
        return len(self.lines) >= BATCH_ROWS or self.chars >= BATCH_CHARS

    def take(self) -> Parsed:
        """The records gathered so far; the collector starts afresh."""
        columns: list[Any] = [list(column) for column in zip(*self.rows, strict=True)] or [[] for _ in range(self.width)]
        parsed = Parsed(self.lines, columns, self.problems)
        self._reset()
        return parsed


def coalesce(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join small batches (a class folder gives one a file), so that what follows works on many rows at once."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= BATCH_ROWS // 2 or size >= BATCH_CHARS:
            yield _joined(held)
            held, rows, size = [], 0, 0
    if held:
        yield _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
