"""Write the parameter table of README.md from params.yaml and its models: `python -m tools.parameters_table`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dagobert.params import Params, load_params
from dagobert.params.base import Section

BEGIN, END = "<!-- parameters: begin (python -m tools.parameters_table) -->", "<!-- parameters: end -->"


def rows(model: type[Section], values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """One table line a parameter: name, default, meaning."""
    for name, field in model.model_fields.items():
        annotation, value = field.annotation, values[name]
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from rows(annotation, value, f"{prefix}{name}.")
        else:
            meaning = re.sub(r"([|<>])", r"\\\1", field.description or "")
            yield f"| `{prefix}{name}` | `{shown(value)}` | {meaning} |"


def shown(value: Any) -> str:
    """A value as YAML writes it on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    return str(value)


def table(root: Path) -> str:
    """The block between the markers, markers included."""
    values = load_params(root / "params.yaml").model_dump(mode="json")
    return "\n".join([BEGIN, "| parameter | default | meaning |", "|---|---|---|", *rows(Params, values), END])


def replaced(text: str, block: str) -> str:
    """README text with the block put in its place."""
    before, rest = text.split(BEGIN)
    return before + block + rest.split(END)[1]


if __name__ == "__main__":
    readme = Path("README.md")
    readme.write_text(replaced(readme.read_text(encoding="utf-8"), table(Path())), encoding="utf-8")
    sys.exit(0)
