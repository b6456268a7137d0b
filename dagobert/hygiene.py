"""What old runs leave behind, what it costs, and what may go: `dagobert tidy`.

May go: clones that no run holds, checkpoints of runs that were given up, copies of recorded models, damaged objects that were
set aside, cache objects that no branch, tag, experiment, stash or file of the working tree or of a clone names. Where a
recorded directory listing is damaged, what it held cannot be known: the whole cache is then kept. So is a cache outside of the
repository: other projects may use it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dagobert.clones import CLONES, flow_clones, folders, held, is_live, lock_path
from dagobert.errors import RepositoryError
from dagobert.objects import total_size
from dagobert.references import references, run_cache_entries
from dagobert.repository import Repository

STATE = Path(".dagobert")
YOUNG = 3600.0  # seconds: a cache object or clone this new may belong to a run that goes on right now


@dataclass(frozen=True)
class Leftover:
    """Something that may go. `kind` groups it in the table."""

    kind: str
    path: Path
    bytes: int
    why: str


def leftovers(repository: Repository, *, checkpoint_days: float = 14, now: float | None = None) -> list[Leftover]:
    """Everything that may go, largest kind first; nothing is changed.

    Args:
        checkpoint_days: checkpoints untouched for this long belong to a run nobody will take up again.
        now: seconds since 1970 (default: the clock).
    """
    now = time.time() if now is None else now
    found = [
        *_clones(repository, now),
        *_checkpoints(repository, now - checkpoint_days * 86400),
        *_state(repository, now),
        *_objects(repository, now),
    ]
    return sorted(found, key=lambda leftover: (leftover.kind, -leftover.bytes))


def remove(repository: Repository, found: list[Leftover]) -> int:
    """Remove leftovers; bytes freed.

    Raises:
        RepositoryError: DVC is busy here: an object that a running command has just written is named nowhere yet.
    """
    if (repository.root / ".dvc/tmp/rwlock").is_file() and _dvc_is_busy(repository.root):
        raise RepositoryError("not removed: a DVC command is running here. Wait for it to end.")
    freed = 0
    for leftover in found:
        if leftover.kind == "clones":
            with held(leftover.path) as free:  # a run may have taken it since it was listed
                if free:
                    shutil.rmtree(leftover.path, ignore_errors=True)
                    if leftover.path.parent == repository.root / CLONES:  # flows use their names, and locks, again
                        lock_path(leftover.path).unlink(missing_ok=True)
        elif leftover.path.is_dir() and not leftover.path.is_symlink():
            shutil.rmtree(leftover.path, ignore_errors=True)
        else:
            leftover.path.unlink(missing_ok=True)
        if not leftover.path.exists():
            freed += leftover.bytes
            with suppress(OSError):  # a directory of the cache that still holds something stays
                if leftover.kind in ("unreferenced cache", "run cache"):
                    leftover.path.parent.rmdir()
    return freed


def _dvc_is_busy(root: Path) -> bool:
    content = (root / ".dvc/tmp/rwlock").read_text(encoding="utf-8", errors="replace").strip()
    return content not in ("", "{}")


def _clones(repository: Repository, now: float) -> Iterator[Leftover]:
    for path in folders(repository.root / CLONES):
        if not is_live(path) and _newest(path) < now - YOUNG:
            yield Leftover("clones", path, _size(path), "a reproduction that was kept or killed")
    for path in folders(flow_clones(repository.root)):
        if not is_live(path):
            yield Leftover("clones", path, _size(path), "a flow run that failed and ended")


def _checkpoints(repository: Repository, before: float) -> Iterator[Leftover]:
    for path in folders(repository.root / STATE / "checkpoints"):
        if _newest(path) < before:
            days = round((time.time() - _newest(path)) / 86400)
            yield Leftover("checkpoints", path, _size(path), f"a training run untouched for {days} days")


def _state(repository: Repository, now: float) -> Iterator[Leftover]:
    for name, why in (("models", "a copy of a recorded model"), ("damaged", "set aside by fsck --repair")):
        for path in sorted((repository.root / STATE / name).glob("*")):
            yield Leftover(name, path, _size(path), why)
    for path in sorted(repository.root.glob("**/.*.partial")):
        if STATE.name not in path.parts and ".venv" not in path.parts and path.stat().st_mtime < now - YOUNG:
            yield Leftover("partial files", path, _size(path), "a write that was killed")


def foreign_cache(repository: Repository) -> Path | None:
    """The cache, where it lies outside of the repository and may hold what other projects need."""
    directory = repository.cache.directory
    return None if directory.resolve() == repository.root.resolve() / ".dvc/cache" else directory


def _objects(repository: Repository, now: float) -> Iterator[Leftover]:
    if foreign_cache(repository) is not None:
        return
    known = references(repository)
    unreadable = [md5 for md5 in known if md5.endswith(".dir") and repository.cache.state(md5) == "damaged"]
    if unreadable:
        return  # what such a directory held cannot be known: keep everything until fsck has mended it
    for md5 in repository.cache.objects():
        path = repository.cache.path(md5)
        if md5 not in known and path.stat().st_mtime < now - YOUNG:
            yield Leftover("unreferenced cache", path, path.stat().st_size, "no branch, tag, experiment or file here names it")
    for path, outs in run_cache_entries(repository):
        if path.stat().st_mtime < now - YOUNG and any(out.md5 not in known for out in outs):
            yield Leftover("run cache", path, path.stat().st_size, "remembers a run whose outputs are not kept")


def _size(path: Path) -> int:
    return total_size(path.rglob("*")) if path.is_dir() else total_size([path])


def _newest(path: Path) -> float:
    return max((entry.stat().st_mtime for entry in [path, *path.rglob("*")]), default=0.0)


def text(found: list[Leftover], *, each: bool = False, foreign: Path | None = None) -> str:
    """What may go and what it costs, by kind; each thing on a line of its own if asked.

    Args:
        foreign: a cache that was not looked at (see `foreign_cache`).
    """
    kept = (
        [f"Kept: every object in {foreign}, because a cache outside of .dvc/cache may be other projects' too."]
        if foreign
        else []
    )
    if not found:
        return "\n".join(["Nothing to tidy.", *kept])
    lines = []
    for kind in dict.fromkeys(leftover.kind for leftover in found):
        group = [leftover for leftover in found if leftover.kind == kind]
        size = sum(leftover.bytes for leftover in group)
        lines.append(f"{kind:20} {len(group):6,}  {size / 1e6:10,.1f} MB  {group[0].why}")
        if each:
            lines += [f"    {leftover.bytes / 1e6:10,.1f} MB  {leftover.path}" for leftover in group]
    lines.append(f"{'together':20} {len(found):6,}  {sum(leftover.bytes for leftover in found) / 1e6:10,.1f} MB")
    return "\n".join([*lines, *kept])
