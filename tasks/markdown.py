"""Markdown for artifacts. Labels, reasons and file names come from data, so every one of them is escaped, everywhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Any

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~<>&$:@.-])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]+")
_LONGEST = 80  # characters of a piece of data that are shown


def text(value: object, longest: int = _LONGEST) -> str:
    """Text from data, shown as it is and never taken for markup, a link or HTML."""
    plain = _CONTROL.sub(" ", str(value))
    plain = plain if len(plain) <= longest else plain[: longest - 1] + "…"
    escaped = _SPECIAL.sub(r"\\\1", plain)
    return escaped.replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; numbers stand right. The head is ours, the cells are escaped."""
    cells = [list(row) for row in rows]
    right = [all(isinstance(row[i], int | float) for row in cells) and bool(cells) for i in range(len(head))]
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(" ---: " if r else " --- " for r in right) + "|"]
    lines += ["| " + " | ".join(number(c) if isinstance(c, int | float) else text(c) for c in row) + " |" for row in cells]
    return "\n".join(lines)


def number(value: float) -> str:
    """A count with separators, a figure with four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def image(png: bytes, description: str) -> str:
    """A picture inside the text: artifacts of images would need an address to load it from."""
    return f"![{text(description)}](data:image/png;base64,{base64.b64encode(png).decode()})"


def points(value: float, other: float) -> str:
    """The difference of two shares, in percentage points with its sign."""
    return f"{(value - other) * 100:+.1f}"


def share(value: Any) -> str:
    """A share as a percentage; a dash for what is missing."""
    return f"{value:.1%}" if isinstance(value, int | float) else "–"
