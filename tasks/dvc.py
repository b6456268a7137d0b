"""DVC as a command: the environment it needs, and what its words mean.

The command line is used, not `dvc.repo`: that is DVC's public interface, and it can be ended without ending the flow.
`--wait-for-lock` is not optional: DVC lets go of its lock while a stage runs and takes it again with a limit of 3 s, so another
holder would lose a finished run. It does not cover the read/write locks of single files, hence `BUSY`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

from tasks import processes
from tasks.errors import WorkplaceError

How = Literal["ran", "restored", "up to date"]

BUSY = "is busy, it is being blocked by"
_GIT_PLACES = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"}
LONGEST_QUERY = 2 * 3600.0  # seconds: a checkout or an experiment may hash and copy a lot, a lock may be held for good
LONGEST_GIT = 1800.0
_HOLDER = re.compile(r"\(PID \d+\): .*")
_FAILED = re.compile(r"failed to run: .*, exited with (-?\d+)")


def environment(root: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of DVC and the stages in a checkout: this Python's commands first, no telemetry, no leftovers of hooks.

    The checkout's own code comes before the installed package, which may be linked to another checkout: a clone at a commit
    runs the code of that commit.
    """
    values = {name: value for name, value in os.environ.items() if name not in _GIT_PLACES}
    path = [*_this_pythons_commands().split(os.pathsep), *os.environ.get("PATH", os.defpath).split(os.pathsep)]
    code = [str(root), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    values |= {"PYTHONPATH": os.pathsep.join(dict.fromkeys(code))}
    values |= {"PATH": os.pathsep.join(dict.fromkeys(path)), "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}
    return values | dict(extra or {})


def _this_pythons_commands() -> str:
    return str(Path(sys.prefix) / "bin")


def mend_locks(root: Path) -> bool:
    """Remove DVC's table of files in use where nobody can read it; true where that was so.

    DVC empties `.dvc/tmp/rwlock` before it writes it. Killed in between, it leaves a file with which no DVC works any more.
    Who writes it holds a lock on `rwlock.lock`: while somebody does, it is left alone.
    """
    path = root / ".dvc" / "tmp" / "rwlock"
    if _is_json(path):
        return False
    fd = os.open(path.with_name("rwlock.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_json(path):
            return False
        path.unlink()
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def repro_command(*targets: str, force: bool = False) -> list[str]:
    """Have DVC bring exactly these stages up to date."""
    return ["dvc", "--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), *targets]


def how_it_went(lines: tuple[str, ...], stage: str) -> How:
    """What DVC did with a stage, from its output."""
    if any(line.startswith(f"Stage '{stage}' is cached") for line in lines):
        return "restored"
    if any(line.startswith(f"Stage '{stage}' didn't change") for line in lines):
        return "up to date"
    return "ran"


def exit_code_of_stage(lines: tuple[str, ...]) -> int | None:
    """The exit code of the stage's own command (negative: a signal), where DVC reports one."""
    for line in reversed(lines):
        if match := _FAILED.search(line):
            return int(match[1])
    return None


def query(root: Path, *arguments: str) -> str:
    """Output of a DVC command that only looks or is quick.

    Raises:
        WorkplaceError: in DVC's words.
    """
    return _output(["dvc", "--wait-for-lock", *arguments], root, LONGEST_QUERY)


def git(root: Path, *arguments: str) -> str:
    """Output of a git command.

    Raises:
        WorkplaceError: in git's words.
    """
    return _output(["git", *arguments], root, LONGEST_GIT)


def head(root: Path) -> str | None:
    """The commit that is checked out; None before the first commit."""
    try:
        return git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    except WorkplaceError:
        return None


def status(root: Path) -> dict[str, Any]:
    """What is out of date; empty when everything is as `dvc.lock` says."""
    changed: dict[str, Any] = json.loads(query(root, "status", "--json"))
    return changed


def locked_outs(root: Path, stage: str) -> dict[str, Any]:
    """Path and MD5 of what `dvc.lock` says a stage made."""
    try:
        lock = YAML(typ="safe", pure=True).load(root / "dvc.lock")
        outs: list[dict[str, Any]] = lock["stages"][stage]["outs"]
    except (FileNotFoundError, KeyError, TypeError):
        return {}
    return {out["path"]: out["md5"] for out in outs if "md5" in out}


def data_files(root: Path, stage: str) -> list[str]:
    """`.dvc` files that a stage depends on: data that was added by hand, whose changes `dvc repro` records first."""
    if not git(root, "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.dvc"):
        return []
    nodes = re.findall(r'^"([^"]+\.dvc)";?$', query(root, "dag", "--dot", stage), re.MULTILINE)
    return sorted(set(nodes))


def _output(command: list[str], root: Path, timeout: float) -> str:
    if command[0] == "dvc":
        mend_locks(root)
    try:
        done = processes.output(command, root, environment(root), timeout)
    except TimeoutError as error:
        raise WorkplaceError(f"{root}: {error}. {lock_holder(root)}") from None
    if done.returncode != 0:
        words = "\n".join(part for part in (done.stderr.strip(), done.stdout.strip()) if part)
        raise WorkplaceError(f"`{' '.join(command)}` failed in {root} (exit code {done.returncode}): {words}")
    return done.stdout.strip()


def lock_holder(root: Path) -> str:
    """Who has DVC's lock of a checkout, as far as it tells."""
    with suppress(OSError):
        if (number := (root / ".dvc" / "tmp" / "lock").read_text(errors="replace").strip()).isdigit():
            return f"The last to take DVC's lock there was process {number}: is it still at work?"
    return "Nothing tells what kept it."


def blocking(lines: tuple[str, ...]) -> str:
    """Which process has a file that DVC found busy, in DVC's words."""
    found = [match[0] for line in lines if (match := _HOLDER.search(line))]
    return "; ".join(dict.fromkeys(found)) or "another DVC command"
