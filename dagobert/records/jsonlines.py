"""JSON Lines: one object a line. Numbers and booleans stand in the batch as JSON writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dagobert.errors import RecordError
from dagobert.records.batches import ITEM, MALFORMED, Collector, Columns, Notes, Parsed, Reading
from dagobert.records.streams import lines


def read(path: Path, columns: Columns, reading: Reading, notes: Notes) -> Iterator[Parsed]:
    """Read a JSON Lines file.

    Raises:
        RecordError: a column that no record has, or one JSON array instead of lines.
    """
    wanted = columns.wanted
    batch = Collector(len(wanted))
    missing: set[str] | None = None  # columns that no record had so far
    seen: dict[str, None] = {}
    for number, line in enumerate(lines(path, reading.encoding, notes), 1):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except RecursionError:
            batch.bad(number, line.rstrip("\r\n"), MALFORMED, "nested too deeply")
            continue
        except ValueError as error:
            if number == 1 and line.lstrip().startswith("["):
                raise _array(path) from None
            batch.bad(number, line.rstrip("\r\n"), MALFORMED, f"no valid JSON: {error}")
            continue
        if isinstance(record, list) and number == 1:
            raise _array(path)
        if not isinstance(record, dict):
            batch.bad(number, line.rstrip("\r\n"), MALFORMED, f"a JSON {type(record).__name__} where an object belongs")
            continue
        if missing is None or missing:
            missing = (set(wanted) if missing is None else missing) - record.keys()
            if len(seen) < 100:
                seen.update(dict.fromkeys(record))
        try:
            values = tuple([_text(record.get(name), columns.kind(name)) for name in wanted])
        except ValueError as error:
            batch.bad(number, line.rstrip("\r\n"), MALFORMED, str(error))
        else:
            batch.add(number, values, len(values[0] or ""))
        if batch.full:
            if missing:
                columns.require(list(seen), str(path))
            yield batch.take()
    if missing:
        columns.require(list(seen), str(path))
    if batch.lines:
        yield batch.take()


def _array(path: Path) -> RecordError:
    return RecordError(
        f"{path}: this is one JSON array, not JSON Lines (one object a line). Convert it: jq -c '.[]' in.json > out.jsonl"
    )


def _text(value: Any, kind: str) -> str | None:
    if value is None or type(value) is str:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if kind == "label" and isinstance(value, list):
        return "".join(f"{ITEM}{_text(item, 'item')}" for item in value) or ITEM
    if kind == "extra":
        return json.dumps(value, ensure_ascii=False)
    raise ValueError(f"a JSON {'list' if isinstance(value, list) else 'object'} where a text, number or true/false belongs")
