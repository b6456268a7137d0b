"""Disposable clones: where a scheduled or parametrised run works, so that the user's checkout is never touched.

A clone is the repository at one commit, with the DVC cache of the original (a stage that ran anywhere is not run again) and its
training checkpoints (a run that was killed goes on in the next clone). It is removed when the run ends; after a failure it is
kept to be looked at, the newest `KEEP` of them. Each run holds an OS lock beside its clone, so that cleaning up never takes a
clone from a living run.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagobert.errors import RepositoryError
from dagobert.repository import Repository
from tasks import dvc
from tasks.errors import WorkplaceError
from tasks.workplace import Workplace

KEEP = 3  # clones of failed runs kept for each repository


def clones_directory(origin: Path) -> Path:
    """Where the clones of a repository lie: outside of it, because DVC would take their graphs for parts of its own."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    base = Path(os.environ.get("DAGOBERT_CLONES") or cache / "dagobert" / "clones")
    return base / f"{origin.name}-{hashlib.sha256(str(origin).encode()).hexdigest()[:8]}"


def resolve(origin: Path, revision: str) -> str:
    """The commit that a revision stands for, as the `dagobert` command reads it; empty: what is checked out.

    Raises:
        WorkplaceError: there is none.
    """
    revision = revision.strip() or "HEAD"
    try:
        return Repository(origin).resolve(revision)
    except RepositoryError as error:
        unborn = f"{origin}: nothing is committed yet. A run works on a commit: `git commit` first."
        raise WorkplaceError(unborn if revision == "HEAD" else str(error)) from None


def experiment_refs(root: Path, name: str) -> list[str]:
    """The git refs of the experiments of that name."""
    refs = dvc.git(root, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    return [ref for ref in refs if re.fullmatch(rf"refs/exps/[0-9a-f]{{2}}/[0-9a-f]{{38}}/{re.escape(name)}", ref)]


@contextmanager
def disposable(origin: Path, revision: str, name: str, *, keep: bool = True) -> Iterator[Workplace]:
    """A clone of `origin` at `revision`, gone when the block ends well (or is cancelled), kept when it fails.

    Args:
        keep: whether there is something to look at in a clone after a failure.

    Raises:
        WorkplaceError: the revision does not exist, or the clone cannot be made.
    """
    commit = resolve(origin, revision)
    directory = clones_directory(origin)
    directory.mkdir(parents=True, exist_ok=True)
    remove_old(directory)
    root, lock = _reserve(directory, name)
    try:
        _make(origin, commit, root)
        yield Workplace(root=root, origin=origin, revision=commit)
    except Exception:
        if keep and root.is_dir():
            os.utime(root)  # now the newest
            _release(lock)
            remove_old(directory)
        else:
            _remove(root, lock)
        raise
    except BaseException:
        _remove(root, lock)
        raise
    else:
        _remove(root, lock)


def remove_old(directory: Path, keep: int = KEEP) -> list[Path]:
    """Remove all but the newest clones that no living run holds; returns what was removed."""
    free = []
    for root in directory.iterdir():
        if root.is_dir() and (lock := _try_lock(_lock_path(root))) is not None:
            free.append((root.stat().st_mtime, root))
            os.close(lock)
    removed = [root for _, root in sorted(free, reverse=True)[keep:]]
    for root in removed:
        shutil.rmtree(root, ignore_errors=True)
        _lock_path(root).unlink(missing_ok=True)
    return removed


def _reserve(directory: Path, name: str) -> tuple[Path, int]:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
    for number in range(1, 10_000):
        root = directory / (safe if number == 1 else f"{safe}-{number}")
        lock = _try_lock(_lock_path(root))
        if lock is None:
            continue
        if not root.exists():
            return root, lock
        os.close(lock)
    raise WorkplaceError(f"{directory}: too many clones. Remove some.")


def _lock_path(root: Path) -> Path:
    return root.with_name(f".{root.name}.lock")


def _try_lock(path: Path) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _release(lock: int) -> None:
    os.close(lock)


def _remove(root: Path, lock: int) -> None:
    shutil.rmtree(root, ignore_errors=True)
    _lock_path(root).unlink(missing_ok=True)
    os.close(lock)


def _make(origin: Path, commit: str, root: Path) -> None:
    dvc.git(origin, "clone", "--quiet", "--no-checkout", str(origin), str(root))
    dvc.git(root, "checkout", "--quiet", "--detach", commit)
    if not (root / ".dvc").is_dir():
        raise WorkplaceError(f"{origin}: commit {commit[:10]} is no DVC repository.")
    _copy_identity(origin, root)
    _share_cache(origin, root)
    _share_checkpoints(origin, root)
    dvc.query(root, "checkout", "--quiet", "--allow-missing")


def _copy_identity(origin: Path, root: Path) -> None:
    """Saving an experiment makes a commit, and git asks by whom."""
    for key, fallback in (("user.name", "Dagobert"), ("user.email", "dagobert@localhost")):
        try:
            value = dvc.git(origin, "config", key)
        except WorkplaceError:
            value = fallback
        dvc.git(root, "config", key, value)


def _share_cache(origin: Path, root: Path) -> None:
    config = configparser.ConfigParser(interpolation=None, strict=False)
    config.read(origin / ".dvc" / "config.local", encoding="utf-8")
    for section in ("cache", "core"):
        if not config.has_section(section):
            config.add_section(section)
    cache = dvc.query(origin, "cache", "dir")
    config["cache"]["dir"] = str((origin / cache).resolve())
    config["core"]["site_cache_dir"] = str(root / ".dvc" / "tmp" / "site-cache")  # goes when the clone goes
    with (root / ".dvc" / "config.local").open("w", encoding="utf-8") as file:
        config.write(file)


def _share_checkpoints(origin: Path, root: Path) -> None:
    """Checkpoints are keyed by the hash of a stage's inputs, so that they fit whichever clone asks for them."""
    checkpoints = origin / ".dagobert" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    state = root / ".dagobert"
    state.mkdir(exist_ok=True)
    (state / "checkpoints").symlink_to(checkpoints, target_is_directory=True)
