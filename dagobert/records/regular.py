"""The common case of CSV, a block at a time: UTF-8, quotes where they belong, the same number of fields in every record.

A block is taken only where its quotes can be read in one way: Arrow's parser and Python's then give the same fields, but Arrow
takes a third of the time. Where that is not so, everything from there on is left to the careful reader (`delimited`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv

from dagobert.records.batches import Parsed

_BLOCK = 4 << 20  # bytes
_LONGEST = 16 << 20  # bytes of one record that are still waited for here
_LF, _CR, _QUOTE = 10, 13, 34
_BOM = b"\xef\xbb\xbf"

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rest:
    """What was left over: its bytes, the number of its first line, and whether there was text beyond ASCII before it."""

    data: bytes
    line: int
    beyond_ascii: bool


def read(
    data: bytes, pieces: Iterator[bytes], line: int, delimiter: str, names: list[str], wanted: tuple[str, ...]
) -> Generator[Parsed, None, Rest | None]:
    """Read records as long as they are regular.

    Args:
        data: the first bytes, from the start of a record.
        pieces: the bytes after them.
        line: number of the first line.
        delimiter: one character.
        names: the columns of the file.
        wanted: those to read.
    Returns:
        What the careful reader must read; None: nothing is left.
    """
    beyond_ascii = False
    while True:
        held = [data]
        size = len(data)
        while size < _BLOCK and (piece := next(pieces, None)) is not None:
            held.append(piece)
            size += len(piece)
        data, final = b"".join(held), size < _BLOCK
        if not data:
            return None
        found = _records(data, final, ord(delimiter))
        if found is None:
            return Rest(data, line, beyond_ascii)
        cut, starts, breaks = found
        if cut == 0:
            piece = next(pieces, None)
            if piece is None or len(data) > _LONGEST:
                return Rest(data + (piece or b""), line, beyond_ascii)
            data += piece
            continue
        block = data[:cut]
        columns = _fields(block, len(starts), delimiter, names, wanted)
        if columns is None:
            return Rest(data, line, beyond_ascii)
        if len(starts):
            yield Parsed(line + np.searchsorted(breaks, starts), columns, {})
        line += int(np.searchsorted(breaks, cut))
        beyond_ascii = beyond_ascii or not block.isascii()
        data = data[cut:]
        if final and not data:
            return None


def _records(data: bytes, final: bool, delimiter: int) -> tuple[int, Positions, Positions] | None:
    """Where the last whole record ends, where each record begins and where the line breaks are; None: not regular."""
    if data.startswith(_BOM):  # Arrow would drop it
        return None
    if final and not data.endswith(b"\n"):
        data += b"\n"
    codes = np.frombuffer(data, np.uint8)
    breaks = np.flatnonzero(codes == _LF)
    returns = np.flatnonzero(codes[:-1] == _CR) if b"\r" in data else breaks[:0]
    if len(returns) and (codes[returns + 1] != _LF).any():
        return None
    quotes = np.flatnonzero(codes == _QUOTE)
    ends = breaks[np.searchsorted(quotes, breaks) % 2 == 0]
    if not len(ends):
        return None if final else (0, ends, breaks)
    cut = int(ends[-1]) + 1
    if not _well_quoted(codes, quotes[: np.searchsorted(quotes, cut)], delimiter) or (final and cut < len(data)):
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])
    empty = (ends == starts) | ((ends == starts + 1) & (codes[starts] == _CR))
    return cut, starts[~empty], breaks


def _well_quoted(codes: npt.NDArray[np.uint8], quotes: Positions, delimiter: int) -> bool:
    """Whether every quote opens a field, closes one, or is half of a doubled one."""
    opening, closing = quotes[0::2], quotes[1::2]
    before = np.where(opening == 0, _LF, codes[np.maximum(opening - 1, 0)])
    doubled = np.zeros(len(opening), bool)
    doubled[1:] = opening[1:] == closing[: len(opening) - 1] + 1
    after = codes[closing + 1]
    opens = (before == delimiter) | (before == _LF) | doubled
    closes = (after == delimiter) | (after == _LF) | (after == _CR) | (after == _QUOTE)
    return bool(opens.all() and closes.all())


def _fields(block: bytes, n: int, delimiter: str, names: list[str], wanted: tuple[str, ...]) -> list[Any] | None:
    """The wanted columns as Arrow arrays; None if a record has another number of fields or holds what is not UTF-8."""
    if n == 0:
        return []
    numbered = [str(i) for i in range(len(names))]
    picked = [str(names.index(name)) for name in wanted]
    try:
        block.decode()
        table = pacsv.read_csv(
            pa.BufferReader(block),
            pacsv.ReadOptions(column_names=numbered, block_size=len(block) + 1),
            pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            pacsv.ConvertOptions(
                column_types={name: pa.string() for name in picked},
                include_columns=picked,
                strings_can_be_null=False,
                null_values=[],
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    if table.num_rows != n:
        return None
    return [pa.concat_arrays(column.chunks) for column in table.columns]
