"""`package://module/path`: a file or directory that an installed Python package ships, found without importing the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dagobert.errors import SourceError

SCHEME = "package://"


def package_path(uri: str) -> Path:
    """Where `package://module/path` lies on this machine.

    Raises:
        SourceError: the package is not installed, or has no such file.
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
    return path
