"""Tidying removes what nobody needs, and nothing that anybody does."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dagobert import clones, hygiene
from dagobert.experiments import record
from dagobert.fsck import fsck
from dagobert.repository import Repository, environment
from tests.reproduce import toy

LATER = time.time() + 365 * 86400


def kinds(repository: Repository, now: float = LATER) -> dict[str, int]:
    found = hygiene.leftovers(repository, now=now)
    return {kind: sum(leftover.kind == kind for leftover in found) for kind in {leftover.kind for leftover in found}}


def test_what_is_recorded_anywhere_stays(toy_root: Path) -> None:
    repository = Repository(toy_root)
    assert kinds(repository) == {}
    toy.set_param(toy_root, "train", "seed", 1)
    toy.repro(toy_root)
    record(repository, "one")
    toy.set_param(toy_root, "train", "seed", 2)
    toy.repro(toy_root)
    toy.git(toy_root, "stash", "--quiet")
    toy.dvc(toy_root, "checkout", "--quiet")
    assert kinds(repository) == {}
    hygiene.remove(repository, hygiene.leftovers(repository, now=LATER))
    for revision in ("main", "one", "stash@{0}"):
        for out in repository.lock(repository.resolve(revision)).outs.values():
            if not out.path.startswith("reports/") and out.path != "data/labels.json":
                assert repository.cache.faults(out) == {}, (revision, out)
    toy.git(toy_root, "stash", "drop", "--quiet")
    found = hygiene.leftovers(repository, now=LATER)
    assert {leftover.kind for leftover in found} == {"unreferenced cache", "run cache"}
    assert "unreferenced cache" in hygiene.text(found, each=True)
    assert hygiene.leftovers(repository) == []  # all of it is younger than an hour
    assert hygiene.remove(repository, found) == sum(leftover.bytes for leftover in found)
    assert fsck(repository).damages == ()
    toy.repro(toy_root)
    assert repository.status() == {}


def test_a_damaged_listing_keeps_the_whole_cache(toy_root: Path) -> None:
    repository = Repository(toy_root)
    toy.flip(repository.cache.path(repository.lock("HEAD").outs["data/tokens"].md5))
    assert kinds(repository) == {}


def test_clones_checkpoints_and_partial_files(toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGOBERT_CLONES", str(tmp_path / "clones"))
    repository = Repository(toy_root)
    ended, held = (clones.flow_clones(toy_root) / name for name in ("ended", "held"))
    for folder in (ended, held, toy_root / ".dagobert/clones/old", toy_root / ".dagobert/checkpoints/key/step-1"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x" * 10)
    (toy_root / "data/.clean.parquet.123.partial").write_text("x")
    lock = os.open(held.with_name(".held.lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert kinds(repository, time.time()) == {"clones": 1}
        assert kinds(repository) == {"clones": 2, "checkpoints": 1, "partial files": 1}
        hygiene.remove(repository, hygiene.leftovers(repository, now=LATER))
        assert held.is_dir()
        assert not ended.exists()
    finally:
        os.close(lock)


def test_a_cache_outside_is_not_touched(toy_root: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shutil.move(toy_root / ".dvc/cache", shared)
    toy.dvc(toy_root, "config", "--local", "cache.dir", str(shared))
    (shared / "files/md5/00").mkdir()
    other = shared / "files/md5/00" / ("0" * 30)
    other.write_text("of another project")
    toy.git(toy_root, "commit", "--quiet", "--amend", "--no-edit")
    command = [sys.executable, "-m", "dagobert", "tidy"]
    shown = subprocess.run(command, cwd=toy_root, env=environment(), capture_output=True, text=True, check=True).stdout
    assert kinds(Repository(toy_root)) == {}
    assert shown.splitlines()[1].startswith(f"Kept: every object in {shared}")
    assert other.is_file()


def test_a_clone_at_work_is_not_listed_and_what_it_made_is_kept(toy_root: Path) -> None:
    repository = Repository(toy_root)
    with repository.clone(repository.resolve("HEAD"), share_cache=True, keep=True) as clone:
        toy.set_param(clone.root, "split", "seed", 5)
        toy.dvc(clone.root, "repro", "--quiet", "--pull", "--allow-missing")
        for path in (clone.root, *clone.root.rglob("*")):
            os.utime(path, (0, 0), follow_symlinks=False)
        lock = clone.lock_here()
        assert lock is not None
        made = lock.outs["data/splits.json"]
        assert made.md5 != repository.lock("HEAD").outs["data/splits.json"].md5
        assert kinds(repository) == {}
    assert kinds(repository) == {"clones": 1}  # kept, and nobody is at work
    found = hygiene.leftovers(repository, now=LATER)
    with clones.held(clone.root):  # taken again between listing and removing
        assert hygiene.remove(repository, found) == 0
    assert repository.cache.faults(made) == {}
    assert hygiene.remove(repository, found) > 0
    assert list((toy_root / clones.CLONES).iterdir()) == []
    assert "unreferenced cache" in kinds(repository)


def test_a_reproduction_leaves_no_lock_behind(toy_root: Path) -> None:
    repository = Repository(toy_root)
    with repository.clone(repository.resolve("HEAD"), share_cache=True) as clone:
        assert clones.is_live(clone.root)
    assert list((toy_root / clones.CLONES).iterdir()) == []
