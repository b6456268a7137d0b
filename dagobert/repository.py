"""A git and DVC repository, asked through their commands: the only module of the library that runs them.

The command lines are used because they are what git and DVC promise; `import dvc` would also cost half a second a command.
Past revisions are read with `git show`, never by checking anything out: nothing here touches the working tree, except where
the name says so. DVC's own questions cost 0.7 s each, so what can be read from `dvc.lock` is read from there.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dagobert.clones import CLONES, held, lock_path
from dagobert.errors import RepositoryError
from dagobert.lockfile import Entry, Lock, StageFlags, inside, parse_data_file, parse_graph, parse_lock, parse_params
from dagobert.objects import Cache

LOCK, GRAPH, PARAMS = "dvc.lock", "dvc.yaml", "params.yaml"
EVENTS = Path(".dagobert/events")
STARTED_BY, SECONDS = "Started-by", "Seconds"  # trailers of an experiment's commit message
ARTIFACT = "model"  # what is promoted; its path is said in dvc.yaml under `artifacts:`
_EXPERIMENT = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(.+)")
_GRACE = 10.0  # seconds a command has to end after SIGTERM
_GONE = 2.0  # seconds to wait for what was killed to be gone


@dataclass(frozen=True)
class Experiment:
    """An experiment DVC knows: its name, its commit, and the commit it was made from."""

    name: str
    commit: str
    baseline: str


def environment() -> dict[str, str]:
    """The environment of git, DVC and stages: this Python's programs first, nothing left over of an outer git or DVC."""
    values = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_"))}
    path = [str(Path(sys.prefix) / "bin"), *os.environ.get("PATH", os.defpath).split(os.pathsep)]
    values |= {name: os.environ[name] for name in os.environ if name.startswith(("GIT_SSH", "GIT_AUTHOR", "GIT_COMMITTER"))}
    return values | {"PATH": os.pathsep.join(dict.fromkeys(path)), "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Repository:
    """A checkout with git and DVC. `root` is absolute."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Repository:
        """The repository that holds `start` (default: the current directory).

        Raises:
            RepositoryError: there is none, or it has no dvc.yaml.
        """
        start = start or Path.cwd()
        try:
            root = Path(_output(["git", "rev-parse", "--show-toplevel"], start).strip())
        except RepositoryError:
            raise RepositoryError(f"{start}: not inside a git repository. Run from a Dagobert checkout.") from None
        if not (root / GRAPH).is_file():
            raise RepositoryError(f"{root}: no {GRAPH} here. Run from a Dagobert checkout.")
        return cls(root)

    # -- git ---------------------------------------------------------------------------------------------------------------

    def git(self, *arguments: str) -> str:
        """Output of a git command, without the last newline.

        Raises:
            RepositoryError: in git's words.
        """
        return _output(["git", *arguments], self.root).removesuffix("\n")

    def resolve(self, revision: str) -> str:
        """The commit that a stage (`production`: the model promoted to it), commit id, tag, branch or experiment name means.

        The first of these that has the name counts: a branch called `production` must not stand for the promoted model.

        Raises:
            RepositoryError: there is no such thing, or several experiments have this name.
        """
        if (promoted := self.promoted(revision)) is not None:
            return promoted
        with suppress(RepositoryError):
            return self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        found = [experiment for experiment in self.experiments() if experiment.name == revision]
        if len({experiment.commit for experiment in found}) > 1:
            raise RepositoryError(
                f"{revision}: {len(found)} experiments have this name: {', '.join(e.commit[:10] for e in found)}. Say which."
            )
        if not found:
            names = ", ".join(experiment.name for experiment in self.experiments()[:8]) or "there are none yet"
            raise RepositoryError(f"{revision}: no commit, tag, branch or experiment has this name. Experiments: {names}.")
        return found[0].commit

    def promoted(self, stage: str) -> str | None:
        """The commit whose model is in a stage now; None: nothing is, or no stage has this name."""
        if not re.fullmatch(r"[a-z][a-z0-9-]*", stage):
            return None
        prefix = f"refs/tags/{ARTIFACT}#{stage}#"
        tags = self.git("for-each-ref", "--format=%(refname)", prefix + "*").split()
        numbers = [int(tag.removeprefix(prefix)) for tag in tags if tag.removeprefix(prefix).isdigit()]
        return self.git("rev-parse", "--verify", f"{prefix}{max(numbers)}^{{commit}}") if numbers else None

    def experiments(self) -> list[Experiment]:
        """Every experiment, oldest first."""
        lines = self.git("for-each-ref", "--sort=creatordate", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
        found = []
        for line in lines:
            name, _, commit = line.rpartition(" ")
            if match := _EXPERIMENT.fullmatch(name):
                found.append(Experiment(match[3], commit, match[1] + match[2]))
        return found

    def head(self) -> str | None:
        """The commit that is checked out; None before the first."""
        try:
            return self.git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        except RepositoryError:
            return None

    def modified(self) -> list[str]:
        """Tracked files that differ from HEAD, sorted."""
        fields = self.git("status", "--porcelain", "-z", "--untracked-files=no", "--no-renames").split("\0")
        return sorted(field[3:] for field in fields if field)

    def files(self, commit: str, *paths: str) -> dict[str, str]:
        """Blob id of every file at a commit below `paths` (default: all)."""
        listing = self.git("ls-tree", "-r", "-z", "--full-tree", commit, "--", *paths)
        entries = (entry.split("\t", 1) for entry in listing.split("\0") if entry)
        return {path: facts.split()[2] for facts, path in entries}

    def read(self, commit: str, path: str) -> bytes | None:
        """A file's bytes at a commit; None where it has none there."""
        return self.read_many([f"{commit}:{path}"])[0]

    def read_many(self, names: Iterable[str]) -> list[bytes | None]:
        """Bytes of many objects in one git process; None for those that do not exist."""
        asked = list(names)
        done = subprocess.run(
            ["git", "cat-file", "--batch"],
            cwd=self.root,
            env=environment(),
            input="\n".join(asked).encode() + b"\n",
            capture_output=True,
        )
        if done.returncode != 0:
            raise RepositoryError(f"git cat-file failed in {self.root}: {done.stderr.decode(errors='replace').strip()}")
        found: list[bytes | None] = []
        at = 0
        for _ in asked:
            end = done.stdout.index(b"\n", at)
            header, at = done.stdout[at:end].split(b" "), end + 1
            if len(header) == 3 and header[1].isalpha() and header[2].isdigit():
                size = int(header[2])
                found.append(done.stdout[at : at + size])
                at += size + 1
            else:
                found.append(None)
        return found

    # -- what was recorded -------------------------------------------------------------------------------------------------

    def lock(self, commit: str) -> Lock:
        """`dvc.lock` at a commit.

        Raises:
            RepositoryError: nothing was recorded there.
        """
        content = self.read(commit, LOCK)
        if content is None:
            raise RepositoryError(
                f"{commit[:10]} holds no {LOCK}: no run was recorded there. `dagobert experiments` lists what was."
            )
        return parse_lock(content.decode(), f"{commit[:10]}:{LOCK}")

    def lock_here(self) -> Lock | None:
        """`dvc.lock` of the working tree."""
        path = self.root / LOCK
        return parse_lock(path.read_text(encoding="utf-8")) if path.is_file() else None

    def uncached_here(self) -> frozenset[str]:
        """Outputs that `dvc.yaml` of the working tree keeps out of the cache."""
        texts = [path.read_text(encoding="utf-8") if path.is_file() else "" for path in (self.root / GRAPH, self.root / PARAMS)]
        return frozenset().union(*(flags.uncached for flags in parse_graph(texts[0], parse_params(texts[1])).values()))

    def params(self, commit: str, path: str = PARAMS) -> dict[str, Any]:
        """A parameter file at a commit, empty where there is none."""
        return parse_params((self.read(commit, path) or b"").decode(), f"{commit[:10]}:{path}")

    def graph(self, commit: str) -> dict[str, StageFlags]:
        """The flags of `dvc.yaml` at a commit."""
        return parse_graph((self.read(commit, GRAPH) or b"").decode(), self.params(commit), f"{commit[:10]}:{GRAPH}")

    def data_files(self, commit: str) -> list[Entry]:
        """What `.dvc` files at a commit track (data that was added by hand)."""
        names = [name for name in self.files(commit) if name.endswith(".dvc")]
        contents = self.read_many(f"{commit}:{name}" for name in names)
        return [
            e for name, content in zip(names, contents, strict=True) if content for e in parse_data_file(content.decode(), name)
        ]

    def data_files_here(self, *, untracked: bool = False) -> list[Entry]:
        """What `.dvc` files of the working tree track; `untracked`: only of those that git does not know yet."""
        which = ("--others",) if untracked else ("--cached", "--others")
        names = self.git("ls-files", "-z", *which, "--exclude-standard", "--", "*.dvc").split("\0")
        paths = {name: self.root / name for name in names if name and (self.root / name).is_file()}
        return [e for name, path in paths.items() for e in parse_data_file(path.read_text(encoding="utf-8"), name)]

    def history(self, *patterns: str) -> dict[str, dict[str, list[str]]]:
        """Every version of the files that any branch, tag, experiment or stash reaches.

        Returns:
            {path: {blob id: the commits that introduced it or whose tip still has it, newest first}}
        """
        stashed = self.git("log", "--walk-reflogs", "--format=%H", "refs/stash").split() if self._has("refs/stash") else []
        log = self.git(
            *("-c", "core.quotePath=false", "log", "--all", *stashed, "--no-show-signature", "-m", "--root", "--format=%x00%H"),
            *("--raw", "--no-abbrev", "--no-renames", "--", *patterns),
        )
        found: dict[str, dict[str, list[str]]] = {}
        for chunk in log.split("\0")[1:]:
            commit, *changes = chunk.split("\n")
            for change in changes:
                facts, _, path = change.partition("\t")
                if path and set(blob := facts.split()[3]) != {"0"}:
                    _append(found.setdefault(path, {}).setdefault(blob, []), commit)
        listing = self.git("for-each-ref", "--format=%(objectname) %(*objectname)", "refs/heads", "refs/tags", "refs/exps")
        tips = [line.split()[-1] for line in listing.splitlines()]
        asked = [(path, tip) for path in found for tip in dict.fromkeys(tips)]
        for (path, tip), there in zip(asked, self._blob_ids(f"{tip}:{path}" for path, tip in asked), strict=True):
            if there is not None:
                _append(found[path].setdefault(there, []), tip)
        return found

    def _blob_ids(self, names: Iterable[str]) -> list[str | None]:
        """Object ids of `COMMIT:PATH` names in one git process; None for those that do not exist."""
        lines = _output(["git", "cat-file", "--batch-check"], self.root, "".join(f"{name}\n" for name in names)).splitlines()
        return [None if line.endswith(" missing") else line.split()[0] for line in lines]

    def _has(self, reference: str) -> bool:
        return bool(self.git("for-each-ref", reference))

    # -- DVC ---------------------------------------------------------------------------------------------------------------

    def dvc(self, *arguments: str) -> str:
        """Output of a DVC command, waiting for DVC's lock.

        Raises:
            RepositoryError: in DVC's words.
        """
        return _output(["dvc", "--wait-for-lock", *arguments], self.root).removesuffix("\n")

    def status(self) -> dict[str, Any]:
        """What is out of date; empty when everything is as `dvc.lock` says."""
        changed: dict[str, Any] = json.loads(self.dvc("status", "--json"))
        return changed

    @cached_property
    def config(self) -> dict[str, dict[str, str]]:
        """DVC's configuration: {section: {option: value}}, the local file over the repository's over the user's."""
        user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "dvc" / "config"
        merged: dict[str, dict[str, str]] = {}
        for path in (user, self.root / ".dvc/config", self.root / ".dvc/config.local"):
            for section, options in _read_config(path).items():
                merged.setdefault(section, {}).update(options)
        return merged

    @property
    def remotes(self) -> dict[str, str]:
        """DVC remotes: {name: URL}, local paths absolute; the default one first."""
        default = self.config.get("core", {}).get("remote")
        found = {
            match[1]: options["url"]
            for section, options in self.config.items()
            if (match := re.fullmatch(r'remote "(.+)"', section)) and "url" in options
        }
        return dict(sorted(found.items(), key=lambda item: item[0] != default))

    @property
    def cache(self) -> Cache:
        """DVC's cache of this checkout."""
        directory = self.config.get("cache", {}).get("dir")
        return Cache(Path(directory) if directory else self.root / ".dvc/cache")

    def save_experiment(self, name: str, message: str, *, force: bool = False) -> str:
        """Record the working tree as an experiment; the name it got.

        `dvc exp save` records whatever lies on the disk, also outputs that do not belong to the parameters, and feeds the run
        cache with them; hence the question first.

        Raises:
            RepositoryError: `dvc status` is not clean, or there is an experiment of this name.
        """
        if changed := self.status():
            raise RepositoryError(
                f"not recorded: what lies here is not what the parameters and the code would make "
                f"({', '.join(sorted(changed))}: see `dvc status`). Run `dvc repro` first."
            )
        included = [word for path in self._untracked_parts() for word in ("--include-untracked", path)]
        self.dvc("exp", "save", "--name", name, "--message", message, *included, *(["--force"] if force else []))
        return name

    def run_message(self, name: str, started_by: str | None = None) -> str:
        """A commit message with what no output may hold: who started the run, and seconds of each stage that ran for it.

        A stage whose record is that of HEAD did not: its last run here was for something else.
        """
        lock, head = self.lock_here(), self.head()
        before = self.read(head, LOCK) if head else None
        known = parse_lock(before.decode()).stages if before else {}
        ran = [stage for stage in (lock.order() if lock else ()) if lock and lock.stages[stage] != known.get(stage)]
        taken = {stage: _seconds(self.root / EVENTS / f"{stage}.jsonl") for stage in ran}
        seconds = json.dumps({stage: value for stage, value in taken.items() if value is not None})
        who = started_by or os.environ.get("DAGOBERT_STARTED_BY") or self.git("config", "--default", "unknown", "user.name")
        return f"dagobert: {name}\n\n{STARTED_BY}: {who}\n{SECONDS}: {seconds}"

    def _untracked_parts(self) -> list[str]:
        """Files that belong to the run and that git does not track yet: DVC would leave them out of the experiment."""
        lock = self.lock_here()
        stages = lock.stages.values() if lock else ()
        parts = {LOCK, GRAPH, PARAMS, *(entry.path for stage in stages for entry in (*stage.deps, *stage.outs))}
        folders = {str(Path(part).parent / ".gitignore") for part in parts}
        untracked = self.git("ls-files", "--others", "--exclude-standard", "-z").split("\0")
        return [path for path in untracked if path and (path in folders or any(inside(path, part) for part in parts))]

    # -- clones ------------------------------------------------------------------------------------------------------------

    @contextmanager
    def clone(self, commit: str, *, share_cache: bool, keep: bool = False) -> Iterator[Repository]:
        """A disposable checkout of a commit, with this repository's remotes; an OS lock beside it says that it is in use.

        Args:
            share_cache: use this repository's DVC cache (a run whose results are wanted), or an empty one of its own
                (a run that must not find anything that was computed before).
            keep: leave it where it is.
        """
        root = self.root / CLONES / f"{commit[:10]}-{secrets.token_hex(3)}"
        with held(root):
            try:
                clone = self._make_clone(root, commit)
                clone.write_local_config(self, share_cache=share_cache)
                yield clone
            finally:
                if not keep:
                    shutil.rmtree(root, ignore_errors=True)
                    lock_path(root).unlink(missing_ok=True)

    def _make_clone(self, root: Path, commit: str) -> Repository:
        shallow = self.git("rev-parse", "--is-shallow-repository") == "true"
        # --shared borrows this repository's objects, so commits that only an experiment's ref reaches are there at once.
        how = ["--no-local"] if shallow else ["--shared"]
        _output(["git", "clone", "--quiet", "--no-checkout", *how, str(self.root), str(root)], self.root)
        clone = Repository(root)
        if shallow:
            clone.git("fetch", "--quiet", "--depth=1", "origin", commit)
        clone.git("-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", commit)
        return clone

    def write_local_config(self, origin: Repository, *, share_cache: bool) -> None:
        """Give a clone the remotes and options of its origin, a site cache of its own, and the origin's cache if asked."""
        sections = {name: dict(options) for name, options in origin.config.items()}
        sections.setdefault("core", {})["site_cache_dir"] = str(self.root / ".dvc/tmp/site-cache")
        cache = sections.setdefault("cache", {})
        cache.pop("dir", None)
        if share_cache:
            cache["dir"] = str(origin.cache.directory)
        lines = []
        for section, options in sections.items():
            lines.append(f"['{section}']" if '"' in section else f"[{section}]")
            lines += [f"    {option} = {value}" for option, value in options.items()]
        path = self.root / ".dvc/config.local"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        path.chmod(0o600)  # remotes may hold credentials


def _read_config(path: Path) -> dict[str, dict[str, str]]:
    """One DVC config file; paths in it are relative to its directory, as DVC reads them."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    try:
        parser.read(path, encoding="utf-8")
    except configparser.Error as error:
        raise RepositoryError(f"{path}: not a DVC configuration: {error}") from error
    sections = {name.strip("'"): dict(parser[name]) for name in parser.sections()}
    for section, options in sections.items():
        for option in ("dir", "site_cache_dir") if section in ("cache", "core") else ("url", "keyfile", "credentialpath"):
            value = options.get(option)
            if value and "://" not in value and not re.match(r"^[\w.-]+@[\w.-]+:", value):
                options[option] = str((path.parent / Path(value).expanduser()).resolve())
    return sections


def _seconds(path: Path) -> float | None:
    """Seconds of the last run in a file of events, where it ended well."""
    last: Any = None
    with suppress(OSError, ValueError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            last = json.loads(line)
    ended = isinstance(last, dict) and last.get("kind") == "end" and last.get("status") == "ok"
    return float(last["seconds"]) if ended else None


def stream(command: list[str], root: Path, on_line: Callable[[str], None]) -> int:
    """Run a command, calling `on_line` with each line of its output; its exit code. It ends, with all it started, when we do.

    DVC that is sent SIGTERM leaves its stage running, so the whole process group is ended. A signal must reach this as an
    exception: see `interruption.tidied_up`.
    """
    process = subprocess.Popen(
        command,
        cwd=root,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        with process.stdout:
            for line in process.stdout:
                on_line(line.rstrip("\n"))
        return process.wait()
    except BaseException:
        _end_group(process)
        raise


def _end_group(process: subprocess.Popen[str]) -> None:
    for number, seconds in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    deadline = time.monotonic() + _GONE
    with suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < deadline:  # or a stage could write into the clone while it is removed
            os.killpg(process.pid, 0)
            time.sleep(0.01)


def _append(values: list[str], value: str) -> None:
    if value not in values:
        values.append(value)


def _output(command: list[str], root: Path, given: str = "") -> str:
    try:
        done = subprocess.run(
            command, cwd=root, env=environment(), input=given, capture_output=True, text=True, errors="surrogateescape"
        )
    except FileNotFoundError as error:
        raise RepositoryError(
            f"{error.filename}: no such program or directory. `dagobert doctor` says what is missing."
        ) from None
    if done.returncode != 0:
        words = "\n".join(part for part in (done.stderr.strip(), done.stdout.strip()) if part)
        raise RepositoryError(f"`{' '.join(command)}` failed in {root} (exit code {done.returncode}): {words}")
    return done.stdout
