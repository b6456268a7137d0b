"""What dvc.yaml declares that a stage depends on, beside the data it reads: its code and its parameters.

DVC records both in dvc.lock as they are after the command, whatever they were while it ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dagobert import files

PIPELINE = Path("dvc.yaml")
_GONE = "no longer there, or unreadable"

Declared = dict[str, Any]  # what is depended on, by name, and its value: a file's SHA-256, or the parameter


def declared(stage: str, params: Path) -> Declared:
    """The code files and parameters of a stage and what they are now. Empty where no dvc.yaml names the stage."""
    entry = _read(PIPELINE).get("stages", {}).get(stage, {})
    code = [Path(name) for name in entry.get("deps", []) if str(name).endswith(".py")]
    values = _read(params)
    found: Declared = {str(path): files.sha256_file(path) if path.is_file() else _GONE for path in code}
    return found | {f"{params}: {name}": _value(values, name) for name in entry.get("params", [])}


def _read(path: Path) -> Mapping[str, Any]:
    """A YAML file; empty where it cannot be read."""
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _value(values: Any, name: str) -> Any:
    """The value at a dotted name."""
    for part in name.split("."):
        if not isinstance(values, dict) or part not in values:
            return _GONE
        values = values[part]
    return values
