from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dagobert import checkpoints as module
from dagobert import files
from dagobert.checkpoints import Checkpoint, Checkpoints, prune, run_key
from dagobert.errors import StorageError


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"model.w": torch.full((4,), float(step))}, {"step": step, "curve": [[1, 0.5]]})


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "run")
    assert store.latest() == (None, [])
    store.save(checkpoint(3))
    found, problems = store.latest()
    assert found is not None
    assert (found.step, found.state, problems) == (3, {"step": 3, "curve": [[1, 0.5]]}, [])
    assert torch.equal(found.tensors["model.w"], torch.full((4,), 3.0))


def test_two_are_kept_and_a_step_may_be_saved_again(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    for step in (2, 10, 9, 10):
        store.save(checkpoint(step))
    assert [path.name for path in store.found()] == ["step-00000009", "step-00000010"]
    store.clear()
    assert store.found() == []


def every_damage(path: Path) -> dict[str, Any]:
    def cut(file: Path) -> None:
        file.write_bytes(file.read_bytes()[:-1])

    def flip(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 4
        file.write_bytes(data)

    return {"cut": cut, "flip": flip, "remove": Path.unlink, "empty": lambda file: file.write_bytes(b"")}


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "empty"])
@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_damage_is_detected_and_the_one_before_is_used(tmp_path: Path, name: str, damage: str) -> None:
    store = Checkpoints(tmp_path)
    store.save(checkpoint(1))
    newest = store.save(checkpoint(2))
    before = (newest / name).read_bytes()
    every_damage(newest)[damage](newest / name)
    found, problems = store.latest()
    if name == "manifest.json" and damage == "cut":  # what is cut is the final newline: the manifest still says the same
        assert before.endswith(b"\n")
        assert found is not None
        return
    assert found is not None
    assert found.step == 1
    assert len(problems) == 1
    assert "step-00000002" in problems[0]


def test_every_flipped_byte_is_detected(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(checkpoint(1))
    newest = store.save(checkpoint(2))
    for name in ("tensors.safetensors", "state.json"):
        data = (newest / name).read_bytes()
        for i in range(len(data)):
            (newest / name).write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
            found, _ = store.latest()
            assert found is not None
            assert found.step == 1, (name, i)
        (newest / name).write_bytes(data)


def test_a_checkpoint_under_another_steps_name_is_refused(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(checkpoint(1)).rename(tmp_path / "step-00000005")
    assert store.latest()[0] is None


@pytest.mark.parametrize("write", range(1, 6))
def test_a_full_disk_leaves_the_checkpoints_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int) -> None:
    """The disk is full at the nth flush, whichever that is."""
    store = Checkpoints(tmp_path)
    store.save(checkpoint(1))
    calls = iter(range(1, 100))
    sync = files.sync

    def full(path: Path) -> None:
        if next(calls) == write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(path)

    monkeypatch.setattr(files, "sync", full)
    try:
        store.save(checkpoint(2))
    except StorageError as error:
        assert "disk is full" in str(error)  # noqa: PT017 (later writes may all have gone through)
    monkeypatch.setattr(files, "sync", sync)
    found, _ = store.latest()
    assert found is not None
    assert found.step in (1, 2)
    store.save(checkpoint(3))
    assert sorted(p.name for p in tmp_path.iterdir())[-1] == "step-00000003"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def big(step: int) -> Checkpoint:
    return Checkpoint(step, {"model.w": torch.full((50_000,), float(step))}, {"step": step})


def the_one_before_is_used(store: Checkpoints) -> bool:
    found, problems = store.latest()
    return (
        found is not None
        and found.step == 1
        and not problems
        and [p.name for p in store.directory.iterdir()] == ["step-00000001"]
    )


def test_a_disk_that_is_really_full_is_named(tiny_disk: Callable[[int], Path]) -> None:
    """safetensors raises an error of its own, which is no `OSError`."""
    store = Checkpoints(tiny_disk(128) / "run")
    store.save(checkpoint(1))
    with pytest.raises(StorageError, match=r"step-00000002: cannot be written: the disk is full"):
        store.save(big(2))
    assert the_one_before_is_used(store)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_file_larger_than_the_process_may_write_is_named(tmp_path: Path) -> None:
    import resource

    store = Checkpoints(tmp_path)
    store.save(checkpoint(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StorageError, match="larger than this process may write"):
            store.save(big(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert the_one_before_is_used(store)


def test_a_format_of_the_future_is_refused(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    path = store.save(checkpoint(1)) / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "format": module.FORMAT + 1}))
    assert store.latest()[0] is None


def test_the_key_changes_with_anything_a_run_is_made_from() -> None:
    assert run_key({"a": 1, "b": 2}) == run_key({"b": 2, "a": 1})
    assert run_key({"a": 1}) != run_key({"a": 2})


def test_other_runs_checkpoints_are_pruned_oldest_first(tmp_path: Path) -> None:
    for age, name in enumerate(["newest", "new", "old", "older", "oldest"]):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    prune(tmp_path, "oldest", keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "newest", "oldest"]


def test_a_checkpoint_crosses_the_network_as_bytes() -> None:
    sent = Checkpoint(7, {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(0)}, {"step": 7, "curve": [[1, 0.5]]})
    came = Checkpoint.from_bytes(sent.to_bytes())
    assert (came.step, came.state) == (sent.step, sent.state)
    assert came.tensors.keys() == sent.tensors.keys()
    assert all(torch.equal(came.tensors[name], t) for name, t in sent.tensors.items())
