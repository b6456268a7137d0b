"""What DVC's files say a stage stands on: the code and parameters that dvc.yaml declares, and the bytes that dvc.lock recorded
of the outputs it reads.

DVC writes a stage's code and parameters into dvc.lock as they are after the command, whatever they were while it ran, and it
does not read an output again whose time and size are those it remembers: a flipped bit goes unseen.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dagobert import files
from dagobert.errors import RepositoryError
from dagobert.lockfile import inside, parameter, parse_lock, parse_params
from dagobert.objects import md5_path

PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")
_GONE = "no longer there, or unreadable"


def declared(stage: str, params: Path) -> dict[str, Any]:
    """The code files and parameters of a stage by name, and what they are now: a file's SHA-256, or the value. Empty where no
    dvc.yaml names the stage."""
    entry = (_read(PIPELINE).get("stages") or {}).get(stage) or {}
    code = [Path(name) for name in entry.get("deps", []) if str(name).endswith(".py")]
    found: dict[str, Any] = {str(path): files.sha256_file(path) if path.is_file() else _GONE for path in code}
    values = _read(params)
    return found | {f"{params}: {name}": _value(values, name) for name in entry.get("params", [])}


def not_as_recorded(inputs: Iterable[Path]) -> dict[str, str]:
    """The outputs among these files and directories (or above them) whose bytes are not those that dvc.lock recorded, and the
    stage that made each. Empty where there is no dvc.lock."""
    if not LOCK.is_file():
        return {}
    names, lock = [path.as_posix() for path in inputs], parse_lock(LOCK.read_text(encoding="utf-8"))
    read = {
        (stage.name, out) for stage in lock.stages.values() for out in stage.outs if any(inside(n, out.path) for n in names)
    }
    return {out.path: stage for stage, out in read if not Path(out.path).exists() or md5_path(Path(out.path)) != out.md5}


def _read(path: Path) -> dict[str, Any]:
    """A YAML file's values; none where it cannot be read."""
    try:
        return parse_params(path.read_text(encoding="utf-8"), str(path))
    except (OSError, ValueError, RepositoryError):
        return {}


def _value(values: dict[str, Any], name: str) -> Any:
    try:
        return parameter(values, name)
    except KeyError:
        return _GONE
