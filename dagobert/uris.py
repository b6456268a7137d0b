"""`package://module/path`: a file or directory that an installed Python package ships, found without importing the package."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from dagobert.errors import SourceError

SCHEME = "package://"


def package_path(uri: str) -> Path:
    """Where `package://module/path` lies on this machine.

    Raises:
        SourceError: the package is not installed, has no such file, or a file is not what its wheel brought.
    """
    module, _, inside = uri.removeprefix(SCHEME).partition("/")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"{uri}: no Python package {module!r} is installed. pip install {module.replace('_', '-')}")
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    path = (root / inside).resolve()
    if not path.is_relative_to(root):
        raise SourceError(f"{uri}: points outside the package.")
    if not path.exists():
        near = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise SourceError(f"{uri}: the package has no {inside!r}." + (f" Beside it: {', '.join(near[:10])}." if near else ""))
    for name, algorithm, digest in _recorded(root, path):
        with name.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).digest()
        if base64.urlsafe_b64encode(found).decode().rstrip("=") != digest:
            raise SourceError(
                f"{uri}: {name.name} is not the file that was installed: its {algorithm} is not the recorded one. "
                f"pip install --force-reinstall --no-deps {module.replace('_', '-')}"
            )
    return path


def _recorded(root: Path, path: Path) -> Iterator[tuple[Path, str, str]]:
    """The files at or below `path` that pip wrote down, each with the algorithm and digest of its RECORD entry.

    Source: https://packaging.python.org/en/latest/specifications/recording-installed-packages/#the-record-file
    """
    for record in root.parent.glob("*.dist-info/RECORD"):
        text = record.read_text(encoding="utf-8")
        if f"{root.name}/" not in text:
            continue
        for name, digest, *_ in csv.reader(text.splitlines()):
            file, (algorithm, _, value) = root.parent / name, digest.partition("=")
            if value and name.startswith(f"{root.name}/") and file.is_relative_to(path) and file.is_file():
                yield file, algorithm, value
