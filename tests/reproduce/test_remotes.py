"""Another machine gets a past experiment from a real remote and proves it: a directory, an SSH server, an S3 server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

import pytest

from dagobert import doctor
from dagobert.experiments import record
from dagobert.fsck import fsck
from dagobert.repository import Repository, environment
from dagobert.reproduction import Options, reproduce
from tests.reproduce import stores, toy

Open = Callable[[Path], AbstractContextManager[stores.Store]]
SLOW = pytest.mark.slow


@pytest.mark.parametrize("open_store", [stores.ssh, stores.s3], ids=["ssh", "s3"])
def test_a_past_model_comes_back_from_a_server(toy_root: Path, tmp_path: Path, open_store: Open) -> None:
    with open_store(tmp_path) as store:
        store.add_to(toy_root)
        toy.commit(toy_root, "A remote")
        toy.dvc(toy_root, "push", "--quiet")
        toy.git(tmp_path, "clone", "--quiet", str(toy_root), "other")
        toy.own_site_cache(tmp_path / "other")
        store.credentials(tmp_path / "other")
        toy.dvc(tmp_path / "other", "pull", "--quiet")
        assert toy.contents(tmp_path / "other") == toy.contents(toy_root)


def test_doctor_asks_the_cloud_itself(toy_root: Path, tmp_path: Path) -> None:
    def said(url: str, **options: str) -> str:
        lines = [f"{name} = {value}" for name, value in (store.options | options).items()] if url.startswith("s3:") else []
        (toy_root / ".dvc/config").write_text("\n".join(["['remote \"far\"']", f"url = {url}", *lines]) + "\n")
        (finding,) = doctor._remotes(toy_root)
        assert "\n" not in finding.text
        return f"{finding.state}: {finding.text}"

    with stores.s3(tmp_path) as store:
        assert said(store.url) == f"ok: {store.url}"  # nothing was pushed yet
        toy.dvc(toy_root, "push", "--quiet", "--remote", "far")
        assert said(store.url) == f"ok: {store.url}"
        assert "The specified bucket does not exist" in said("s3://no-such-bucket/dvc")
        assert "look: s3://store/dvc: cannot be listed (Forbidden" in said(store.url, secret_access_key="wrong")
    if find_spec("dvc_oss") is None:
        assert said("oss://bucket/x").endswith("DVC cannot speak oss here: .venv/bin/pip install 'dvc-oss'")


@pytest.mark.parametrize(
    "open_store",
    [stores.directory, pytest.param(stores.ssh, marks=SLOW), pytest.param(stores.s3, marks=SLOW)],
    ids=["directory", "ssh", "s3"],
)
def test_another_machine_restores_and_reproduces(toy_root: Path, tmp_path: Path, open_store: Open) -> None:
    with open_store(tmp_path) as store:
        source = tmp_path / "source.csv"
        source.write_text(toy.source_text(salt=2))
        toy.set_param(toy_root, "data", "source", str(source))
        toy.set_param(toy_root, "train", "seed", 9)
        store.add_to(toy_root)
        toy.repro(toy_root)
        toy.commit(toy_root, "A run to share")
        toy.set_param(toy_root, "train", "seed", 10)
        toy.repro(toy_root)
        record(Repository(toy_root), "ten")
        expected = toy.contents(toy_root)
        toy.git(tmp_path, "init", "--quiet", "--bare", "central.git")
        toy.git(toy_root, "remote", "add", "origin", str(tmp_path / "central.git"))
        toy.git(toy_root, "push", "--quiet", "origin", "main")
        toy.dvc(toy_root, "exp", "push", "--quiet", "origin", "ten")
        source.unlink()  # the other machine has neither source nor cache

        toy.git(tmp_path, "clone", "--quiet", "central.git", "other", "--branch", "main")
        other = tmp_path / "other"
        toy.git(other, "config", "user.name", "Other")
        toy.git(other, "config", "user.email", "other@example.org")
        toy.own_site_cache(other)
        store.credentials(other)
        toy.git(other, "fetch", "--quiet", "origin", "refs/exps/*:refs/exps/*")
        repository = Repository(other)
        report = reproduce(Repository(other), "ten", Options(pull=True))
        assert report.verdict == "identical"
        toy.dvc(other, "exp", "pull", "--quiet", "origin", "ten")
        toy.dvc(other, "exp", "apply", "ten")
        assert toy.contents(other) == expected
        assert fsck(repository).damages == ()


FILES = 150


@pytest.mark.parametrize(
    "open_store",
    [pytest.param(each, marks=SLOW) for each in (stores.directory, stores.ssh, stores.s3)],
    ids=["directory", "ssh", "s3"],
)
def test_an_interrupted_push_or_pull_goes_on(toy_root: Path, tmp_path: Path, open_store: Open) -> None:
    """Killed once a few objects have arrived; the second time, the rest is transferred and what was there is left alone."""
    (toy_root / "own").mkdir()
    for number in range(FILES):
        (toy_root / f"own/{number}.bin").write_bytes(os.urandom(1 << 18))
    toy.dvc(toy_root, "add", "--quiet", "own")
    with open_store(tmp_path) as store:
        store.add_to(toy_root)
        toy.commit(toy_root, "Data")
        arrived = killed(toy_root, ["push", "own.dvc"], store.objects)
        toy.dvc(toy_root, "push", "--quiet")
        assert arrived.items() <= store.objects().items()
        toy.git(tmp_path, "clone", "--quiet", str(toy_root), "other")
        other = tmp_path / "other"
        toy.own_site_cache(other)
        store.credentials(other)
        cache = other / ".dvc/cache"
        arrived = killed(other, ["fetch", "own.dvc"], lambda: stores.objects_below(cache))
        toy.dvc(other, "pull", "--quiet")
        assert arrived.items() <= stores.objects_below(cache).items()
        for number in range(FILES):
            assert (other / f"own/{number}.bin").read_bytes() == (toy_root / f"own/{number}.bin").read_bytes()
        assert fsck(Repository(other)).damages == ()


def killed(root: Path, command: list[str], objects: Callable[[], dict[str, object]]) -> dict[str, object]:
    """Kill a transfer as soon as a few objects have arrived; what has arrived then: something, and not everything."""
    process = subprocess.Popen(
        ["dvc", *command, "--quiet", "--jobs", "1"],
        cwd=root,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while len(objects()) < 5:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    arrived = objects()
    assert 0 < len(arrived) < FILES
    return arrived
