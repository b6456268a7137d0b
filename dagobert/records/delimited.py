"""CSV and TSV: one record at a time, so that a damaged one costs only itself.

A record whose quotes do not close, or close in mid-field, is set aside as its first physical line, and reading goes on at the
next line. Python's csv in strict mode is the judge of what is damaged.
"""

from __future__ import annotations

import csv
import sys
from collections import deque
from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from dagobert.errors import RecordError
from dagobert.records import regular
from dagobert.records.batches import MALFORMED, MAX_RECORD, Collector, Columns, Notes, Parsed, Reading
from dagobert.records.layout import format_of
from dagobert.records.streams import Begun, by_first_bytes, chunks, lines

_DELIMITERS = (",", ";", "\t", "|")
_MAX_WASTE = 1 << 30  # characters read twice because of unclosed quotes, before the file is refused


class _TooLongError(Exception):
    pass


class _Records:
    """Records of a line stream; after a damaged one, reading starts again at the line after its first."""

    def __init__(self, source: Iterator[str], **dialect: Any) -> None:
        self._source = source
        self._dialect = dialect
        self._again: deque[str] = deque()
        self.taken: list[str] = []
        self.line = 0  # number of the current record's first line
        self.wasted = 0
        self._reader = csv.reader(self._feed(), **dialect)

    def _feed(self) -> Iterator[str]:
        length = 0
        while True:
            if self._again:
                line = self._again.popleft()
            else:
                found = next(self._source, None)
                if found is None:
                    return
                line = found
            length = len(line) if not self.taken else length + len(line)
            self.taken.append(line)
            if length > MAX_RECORD:
                raise _TooLongError
            yield line

    def __iter__(self) -> Iterator[list[str] | str]:
        """Fields of a record, or a message about a damaged one. `line` and `taken` tell where it stands and its raw lines."""
        while True:
            self.line += len(self.taken)
            self.taken = []
            try:
                yield next(self._reader)
            except StopIteration:
                return
            except (csv.Error, _TooLongError) as error:
                if not self.taken:
                    return
                self.wasted += sum(map(len, self.taken[1:]))
                self._again.extendleft(reversed(self.taken[1:]))
                del self.taken[1:]
                self._reader = csv.reader(self._feed(), **self._dialect)
                yield _words(error)


def _words(error: Exception) -> str:
    text = str(error)
    if "unexpected end" in text or isinstance(error, _TooLongError):
        return "a quote is opened and never closed"
    return "a quote is never closed, or not doubled inside a quoted field" if "expected after" in text else text


def read(path: Path, columns: Columns, reading: Reading, notes: Notes) -> Iterator[Parsed]:
    """Read a CSV or TSV file.

    Raises:
        RecordError: no header, a missing column, or quotes that make no sense throughout.
    """
    csv.field_size_limit(sys.maxsize)
    pieces = chunks(path, notes)
    first = next(pieces, b"")
    opening = _opening(first, reading)
    if opening is None:
        yield from _carefully(lines(path, reading.encoding, notes, Begun(chain([first], pieces), None)), path, columns, reading)
        return
    head, body = opening
    delimiter = _delimiter(head, path, columns, reading)
    header = [name.strip() for name in reading.columns or _header(head, delimiter, path)]
    columns.require(header, str(path))
    notes.encoding("utf-8")
    line = 1 if reading.columns is not None else 2
    rest = yield from regular.read(body, pieces, line, delimiter, header, columns.wanted)
    if rest is not None:
        begun = Begun(chain([rest.data], pieces), rest.beyond_ascii)
        records = _Records(lines(path, reading.encoding, notes, begun), delimiter=delimiter, strict=True)
        records.line = rest.line
        yield from _rows(records, iter(records), header, columns, path)


def _header(line: str, delimiter: str, path: Path) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise RecordError(f"{path}:1: the line that names the columns cannot be read: {_words(error)}.") from None


def _opening(first: bytes, reading: Reading) -> tuple[str, bytes] | None:
    """The first line of a file that may be regular, and its first bytes, after the header if there is one; else None."""
    codec, skip = by_first_bytes(first)
    if reading.quoting != "doubled" or reading.encoding.lower() not in ("auto", "utf-8", "utf8") or codec != "utf-8":
        return None
    line, end, body = first[skip:].partition(b"\n")
    try:
        head = line.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        return None
    if not end or not head or "\r" in head or head.count('"') % 2:
        return None
    return head, first[skip:] if reading.columns is not None else body


def _carefully(source: Iterator[str], path: Path, columns: Columns, reading: Reading) -> Iterator[Parsed]:
    header_line = next(source, "")
    if header_line and not header_line.strip("\r\n"):
        raise RecordError(f"{path}: the first line is empty. It must name the columns.")
    if not header_line:
        raise RecordError(f"{path}: the file is empty.")
    dialect = {"strict": True, **_quoting(reading.quoting), "delimiter": _delimiter(header_line, path, columns, reading)}

    def again() -> Iterator[str]:
        yield header_line
        yield from source

    records = _Records(again(), **dialect)
    records.line = 1
    iterator = iter(records)
    if reading.columns is None:
        header = next(iterator)
        if isinstance(header, str):
            raise RecordError(f"{path}:1: the line that names the columns cannot be read: {header}.")
    else:
        header = list(reading.columns)
    header = [name.strip() for name in header]
    columns.require(header, str(path))
    yield from _rows(records, iterator, header, columns, path)


def _rows(
    records: _Records, iterator: Iterator[list[str] | str], header: list[str], columns: Columns, path: Path
) -> Iterator[Parsed]:
    places = [header.index(name) for name in columns.wanted]
    pick = itemgetter(*places) if len(places) > 1 else (lambda row, at=places[0]: (row[at],))
    width = len(header)
    batch = Collector(len(places))
    for row in iterator:
        if isinstance(row, str):
            batch.bad(records.line, records.taken[0].rstrip("\r\n"), MALFORMED, row)
            if records.wasted > _MAX_WASTE:
                raise RecordError(
                    f"{path}:{records.line}: quotes are opened and never closed, again and again. "
                    f"If a quote is an ordinary character in this file, set data.quoting: none."
                )
        elif len(row) == width:
            values = pick(row)
            batch.add(records.line, values, len(values[0]))
        elif row:  # an empty line is no record
            raw = "".join(records.taken).rstrip("\r\n")
            batch.bad(records.line, raw, MALFORMED, f"{len(row)} fields where the header has {width}")
        if batch.full:
            yield batch.take()
    if batch.lines:
        yield batch.take()


def _quoting(name: str) -> dict[str, Any]:
    settings: dict[str, dict[str, Any]] = {
        "doubled": {"quotechar": '"', "doublequote": True},
        "backslash": {"quotechar": '"', "doublequote": False, "escapechar": "\\"},
        "none": {"quoting": csv.QUOTE_NONE, "quotechar": None},
    }
    return settings[name]


def _delimiter(header: str, path: Path, columns: Columns, reading: Reading) -> str:
    if reading.delimiter != "auto":
        return reading.delimiter
    if reading.format == "tsv" or (reading.format == "auto" and format_of(path) == "tsv"):
        return "\t"
    if reading.columns is not None:
        return max(_DELIMITERS, key=header.count) if any(map(header.count, _DELIMITERS)) else ","

    def names(delimiter: str) -> int:
        found = [name.strip().strip('"') for name in header.rstrip("\r\n").split(delimiter)]
        return sum(name in found for name in columns.wanted)

    return max(_DELIMITERS, key=names)
