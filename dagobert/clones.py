"""Where the clones of a repository lie, and which of them a living run holds.

Whoever works in a clone holds an OS lock on a file beside it, so that the kernel says who lives: `reproduce` on the clones in
the repository, flows (tasks/clones.py) on those outside.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CLONES = Path(".dagobert/clones")


def flow_clones(root: Path) -> Path:
    """Where flows keep the clones of a repository (outside of it; named as in tasks/clones.py)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    base = Path(os.environ.get("DAGOBERT_CLONES") or cache / "dagobert" / "clones")
    return base / f"{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"


def folders(path: Path) -> list[Path]:
    """Directories in a directory, sorted; none where it is missing."""
    return sorted(entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []


def workplaces(root: Path) -> list[Path]:
    """Every checkout in which a run may be at work, or was: clones, and DVC's own of experiments in temporary directories."""
    temporary = (root / ".dvc/tmp/exps").glob("*/*/dvc.lock")
    return [*folders(root / CLONES), *folders(flow_clones(root)), *sorted(path.parent for path in temporary)]


def lock_path(clone: Path) -> Path:
    """The file whose lock the run in a clone holds."""
    return clone.with_name(f".{clone.name}.lock")


@contextmanager
def held(clone: Path) -> Iterator[bool]:
    """Hold a clone while the block runs; whether that could be had: False where a living run holds it."""
    path = lock_path(clone)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        taken = False
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = True
        yield taken
    finally:
        os.close(descriptor)


def is_live(clone: Path) -> bool:
    """Whether a living run holds a clone."""
    if not lock_path(clone).is_file():
        return False
    with held(clone) as free:
        return not free
