"""How many records a file holds, counted without any code of Dagobert, of csv or of json: character by character."""

from __future__ import annotations

import re

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")


def lines_of(text: str) -> list[str]:
    return _LINE.findall(text)


def json_records(text: str) -> int:
    return sum(1 for line in lines_of(text) if line.strip())


def csv_records(text: str, delimiter: str) -> tuple[list[str] | None, int]:
    """The header's fields (None where it cannot be read) and the number of records after it."""
    lines = lines_of(text)
    at, records = 0, 0
    header: list[str] | None = None
    first = True
    while at < len(lines):
        if not lines[at].strip("\r\n"):
            if first:
                return None, 0
            at += 1
            continue
        fields, used = _record(lines, at, delimiter)
        if first:
            if fields is None:
                return None, 0
            header, first = fields, False
        else:
            records += 1
        at += used if fields is not None else 1
    return header, records


def _record(lines: list[str], at: int, delimiter: str) -> tuple[list[str] | None, int]:
    """Fields of the record that begins at a line, None if its quotes do not match; and how many lines it takes."""
    fields, field, state = [], "", "start"
    used = 0
    while at + used < len(lines):
        line = lines[at + used]
        used += 1
        bare = line.rstrip("\r\n")
        for char in bare:
            if state == "quoted":
                if char == '"':
                    state = "closing"
                else:
                    field += char
            elif state == "closing":
                if char == '"':
                    field, state = field + char, "quoted"
                elif char == delimiter:
                    fields, field, state = [*fields, field], "", "start"
                else:
                    return None, 1
            elif char == delimiter:
                fields, field, state = [*fields, field], "", "start"
            elif char == '"' and state == "start":
                state = "quoted"
            else:
                field, state = field + char, "plain"
        if state != "quoted":
            return [*fields, field], used
        field += line[len(bare) :]
    return None, 1
