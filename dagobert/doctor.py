"""Is this machine ready? One line a thing: what it is, whether it is well, and what to do where it is not.

Looks and never changes anything. Every check is a function of the checkout's root; one that cannot look says so instead of
failing.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

from dagobert.errors import DagobertError
from dagobert.repository import Repository, environment

State = Literal["ok", "look", "bad"]  # look: works, and should be looked at
_OLDEST, _NEWEST = (3, 11), (3, 14)
_DISK_BAD, _DISK_LOW = 2e9, 10e9  # bytes free: less than one training run writes; less than a comfortable few
_PATIENCE = 3.0  # seconds to wait for a server
_CLOUD_PATIENCE = 30.0  # seconds to wait for a listing: DVC starts in one, and a cloud's library tries again and again
_PORTS = {"ssh": 22, "https": 443, "http": 80}
_NOT_CLOUDS = {"", "file", *_PORTS}  # asked without DVC: it would want a password, or lists nothing


@dataclass(frozen=True)
class Finding:
    """One line."""

    name: str
    state: State
    text: str


def examine(root: Path) -> Iterator[Finding]:
    """Every finding about the checkout at `root` and this machine."""
    for check in CHECKS:
        try:
            yield from check(root)
        except (DagobertError, OSError, subprocess.SubprocessError, ValueError) as error:
            yield Finding(check.__name__.removeprefix("_"), "look", f"could not be looked at: {error}")


def _python(root: Path) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if not _OLDEST <= sys.version_info[:2] <= _NEWEST:
        yield Finding("python", "bad", f"{version}: Python 3.11 to 3.14 is needed. Install one, then: rm -rf .venv; make setup")
    else:
        yield Finding("python", "ok", f"{version} in {sys.prefix}")


def _packages(root: Path) -> Iterator[Finding]:
    lock = root / "requirements.lock"
    if not lock.is_file():
        yield Finding("packages", "look", "no requirements.lock here: nothing to compare with")
        return
    wrong = [
        f"{name} {locked} locked, {there or 'missing'} here" for name, (locked, there) in differences(lock.read_text()).items()
    ]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        yield Finding("packages", "look", f"not as locked: {', '.join(wrong[:4])}{more}. make setup installs what is locked")
    else:
        yield Finding("packages", "ok", "as locked in requirements.lock")


def differences(lock: str) -> dict[str, tuple[str, str | None]]:
    """Packages that are not installed as a lock file says: {name: (locked, installed; None: not there)}."""
    found: dict[str, tuple[str, str | None]] = {}
    for line in lock.splitlines():
        name, separator, version = line.partition("#")[0].strip().partition("==")
        if not separator:
            continue
        version = version.partition(";")[0].strip()
        try:
            there: str | None = importlib.metadata.version(name.partition("[")[0])
        except importlib.metadata.PackageNotFoundError:
            there = None
        if there is None or there.partition("+")[0] != version.partition("+")[0]:
            found[name] = (version, there)
    return found


def _torch(root: Path) -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", "bad", f"cannot be imported ({error}). make setup")
        return
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        yield Finding("torch", "ok", f"{torch.__version__} on {torch.cuda.get_device_name(0)} ({memory / 2**30:.0f} GiB)")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "torch",
            "look",
            f"{torch.__version__} does not see the GPU of this machine: it is a CPU build, or the driver is too old",
        )
    else:
        yield Finding("torch", "ok", f"{torch.__version__} on CPU ({torch.backends.cpu.get_cpu_capability()}); no GPU here")


def _threads(root: Path) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
    if any(value != str(cores) for value in limits.values()):
        listed = ", ".join(f"{name}={value}" for name, value in limits.items())
        yield Finding(
            "threads", "look", f"{cores} cores, and {listed} is set: other speed, and other last bits of the model. unset it"
        )
    else:
        yield Finding("threads", "ok", f"{cores} cores")


def _git(root: Path) -> Iterator[Finding]:
    repository = Repository.find(root)
    version = repository.git("--version").removeprefix("git version ")
    if not repository.git("config", "--default", "", "user.email"):
        text = (
            'who you are is not set: git config --global user.name "Your Name"; git config --global user.email you@example.org'
        )
        yield Finding("git", "look", f"{version}; {text}")
    elif modified := repository.modified():
        yield Finding(
            "git", "look", f"{version}; {len(modified)} files are not committed ({', '.join(modified[:3])}): git status"
        )
    else:
        yield Finding("git", "ok", f"{version}, nothing uncommitted")


def _dvc(root: Path) -> Iterator[Finding]:
    repository = Repository.find(root)
    done = subprocess.run(["dvc", "--version"], env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        yield Finding("dvc", "bad", "does not start: make setup")
        return
    try:
        json.loads((root / ".dvc/tmp/rwlock").read_bytes())
    except FileNotFoundError:
        pass
    except ValueError:
        yield Finding("dvc", "bad", "was killed while it wrote .dvc/tmp/rwlock, and works no more: rm .dvc/tmp/rwlock")
        return
    changed = repository.status()
    if changed:
        yield Finding("dvc", "look", f"{done.stdout.strip()}; out of date: {', '.join(sorted(changed))}. dvc repro")
    else:
        yield Finding("dvc", "ok", f"{done.stdout.strip()}, nothing out of date")


def _cache(root: Path) -> Iterator[Finding]:
    repository = Repository.find(root)
    objects = [repository.cache.path(md5) for md5 in repository.cache.objects()]
    size = sum(path.stat().st_size for path in objects)
    lock = repository.lock_here()
    uncached = repository.uncached_here()
    outs = lock.outs.values() if lock else ()
    missing = [out.path for out in outs if out.path not in uncached and not repository.cache.path(out.md5).exists()]
    text = f"{len(objects):,} objects, {size / 1e9:.2f} GB in {repository.cache.directory}"
    if missing:
        yield Finding("cache", "look", f"{text}; not in it: {', '.join(missing[:4])}. dvc pull, or dvc repro")
    else:
        yield Finding("cache", "ok", f"{text} (dagobert fsck hashes them)")


def _remotes(root: Path) -> Iterator[Finding]:
    remotes = Repository.find(root).remotes
    if not remotes:
        yield Finding("remotes", "look", "none: what is here is the only copy. dvc remote add --default store /some/other/disk")
    for name, url in remotes.items():
        problem = _remote_problem(root, name, url)
        yield Finding(f"remote {name}", "look" if problem else "ok", f"{url}{': ' + problem if problem else ''}")


def _remote_problem(root: Path, name: str, url: str) -> str | None:
    problem = unreachable(url, Repository.find(root).config.get(f'remote "{name}"', {}))
    return problem or (unlisted(root, name, url) if urlparse(url).scheme not in _NOT_CLOUDS else None)


def unreachable(url: str, options: Mapping[str, str] | None = None) -> str | None:
    """Why a remote cannot be reached, as far as that can be told without its credentials; None: it answers.

    Args:
        options: what DVC's configuration says of the remote (`port`, `endpointurl`).
    """
    options = options or {}
    parsed = urlparse(options.get("endpointurl") or url)
    if not parsed.scheme or parsed.scheme == "file":
        path = Path(parsed.path)
        return None if path.is_dir() or path.parent.is_dir() else "no such directory: mount it, or dvc remote modify … url …"
    if parsed.scheme not in _PORTS or not parsed.hostname:
        return None
    port = int(options.get("port") or parsed.port or _PORTS[parsed.scheme])
    try:
        socket.create_connection((parsed.hostname, port), _PATIENCE).close()
    except OSError as error:
        return f"{parsed.hostname}:{port} does not answer ({error}): check network and address"
    return None


def unlisted(root: Path, name: str, url: str) -> str | None:
    """Why DVC cannot list a remote, with the credentials it has; None: it can, or nothing has been pushed there yet."""
    command = ["dvc", "list-url", "--level", "0", f"remote://{name}/"]
    try:
        done = subprocess.run(
            command, cwd=root, env=environment(), capture_output=True, text=True, check=False, timeout=_CLOUD_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return f"does not answer within {_CLOUD_PATIENCE:.0f} s: check network, endpointurl, region and credentials"
    if done.returncode == 0:
        return None
    if missing := re.search(r"requires '(dvc-[\w-]+)'", done.stderr) or re.search(r"pip install '(\S+)'", done.stderr):
        return f"DVC cannot speak {urlparse(url).scheme} here: .venv/bin/pip install '{missing[1]}'"
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    words = (errors or ["DVC does not say why"])[-1].removeprefix("ERROR: ").removeprefix("unexpected error - ")
    if words.rpartition(" does not exist: ")[2].strip("/") == url.partition("://")[2].strip("/"):
        return None  # an empty place in a bucket that is there
    return f"cannot be listed ({words}): check its name, and the credentials in .dvc/config.local"


def _prefect(root: Path) -> Iterator[Finding]:
    try:
        version = importlib.metadata.version("prefect")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("prefect", "look", "not installed: `dvc repro` works without; make setup installs it")
        return
    url = os.environ.get("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    parsed = urlparse(url)
    try:
        socket.create_connection((parsed.hostname or "127.0.0.1", parsed.port or 4200), 0.5).close()
        yield Finding("prefect", "ok", f"{version}, server at {url}")
    except OSError:
        yield Finding("prefect", "ok", f"{version}, no server at {url} (make serve starts one)")


def _disk(root: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(root).free
    state: State = "bad" if free < _DISK_BAD else "look" if free < _DISK_LOW else "ok"
    hint = "" if state == "ok" else ": dagobert tidy --dry-run shows what may go"
    yield Finding("disk", state, f"{free / 1e9:.0f} GB free{hint}")


def _model(root: Path) -> Iterator[Finding]:
    from dagobert.params import load_params
    from dagobert.pretrained import checkpoint_directory

    name = load_params(root / "params.yaml").model.name_or_path
    try:
        with suppress(ImportError):
            if "://" in name or Path(name).is_absolute() or (root / name).is_dir():
                checkpoint_directory(name if "://" in name else str(root / name))
                yield Finding("base model", "ok", name)
                return
        yield Finding("base model", "ok", f"{name}, from the hub when it is asked for")
    except DagobertError as error:
        yield Finding("base model", "bad", str(error))


CHECKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (
    _python, _packages, _torch, _threads, _git, _dvc, _cache, _remotes, _prefect, _disk, _model,
)  # fmt: skip


def text(found: list[Finding]) -> str:
    """The findings for a terminal."""
    width = max(len(finding.name) for finding in found)
    return "\n".join(f"{finding.state:4}  {finding.name.ljust(width)}  {finding.text}" for finding in found)
