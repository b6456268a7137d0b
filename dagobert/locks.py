"""One training at a time: an OS lock that `dvc repro` at a shell, a queued experiment and a scheduled run all honour.

Each GPU is locked for the whole machine, whoever's repository asks for it: a training on GPUs 0 and 1 waits for one on 0. On a
CPU the lock is the repository's (its clones share its checkpoints, and two trainings of the same inputs would write the same
ones). `flock` and not a file that exists or not: the kernel gives it back however the holder ends.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dagobert import events

_WAIT = 0.2  # seconds between tries
NAME = "training.lock"
_GPUS = Path("/proc/driver/nvidia/gpus")  # a folder for each


@contextmanager
def training(device: str, directory: Path) -> Iterator[None]:
    """Hold the right to train on `device` ("cuda" or "cpu"); waits, and says for whom.

    Args:
        directory: where the lock of a CPU training lies.
    """
    if device != "cuda":
        with exclusive(directory / NAME, "another training on this repository"):
            yield
        return
    with ExitStack() as held:
        for name in visible_gpus():
            path = Path(tempfile.gettempdir()) / f"dagobert-cuda-{name}.lock"
            held.enter_context(exclusive(path, f"another training on GPU {name}"))
        yield


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them, else all of the machine.

    In the same order for everybody, so that two trainings never wait for each other.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(max(1, len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0))]
    names = {re.sub(r"[^A-Za-z0-9-]+", "-", name.strip()) for name in named.split(",") if name.strip()}
    return sorted(names or {"0"}, key=lambda name: (len(name), name))


@contextmanager
def exclusive(path: Path, holder: str) -> Iterator[None]:
    """Hold the lock at `path`; `holder` is who is said to have it meanwhile."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, writable = _open(path)
    try:
        said = False
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not said:
                    who = os.pread(fd, 32, 0).decode(errors="replace").strip()
                    events.say(f"waiting for {holder} to end" + (f" (process {who})" if who.isdigit() else ""))
                    said = True
                time.sleep(_WAIT)
        if writable:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _open(path: Path) -> tuple[int, bool]:
    """A descriptor to lock, and whether it can be written: a file of another user can be locked all the same."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), True
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC), False
