"""Does what a commit recorded belong to that commit? Code, parameters, commands and hashes, checked against `dvc.lock`.

`dvc.lock` holds the MD5 of the code and the values of the parameters that made the outputs. So whether a run was made from a
tree that was never committed ("dirty") needs no note beside the run, which a clone of the same tree could not make equal:
it can be proved, now and at any commit, from content alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from dagobert.lockfile import Lock, StageFlags, StageRecord, inside, parameter, parse_params
from dagobert.objects import md5_bytes, md5_listing
from dagobert.repository import Repository
from dagobert.verdicts import Fault


def record_faults(repository: Repository, commit: str) -> list[Fault]:
    """Everything in `dvc.lock` at a commit that does not fit the commit; empty for a run of exactly this tree."""
    lock, graph = repository.lock(commit), repository.graph(commit)
    tracked = Tree(repository, commit)
    data = {entry.path: entry.md5 for entry in repository.data_files(commit)}
    faults: list[Fault] = []
    for name in lock.order():
        stage = lock.stages[name]
        if name not in graph:
            continue  # a stage that was renamed or removed: DVC leaves its lines standing
        faults += _parameters(stage, tracked)
        if graph[name].command != stage.command:
            text = f"{name}: dvc.yaml says `{graph[name].command}`, the record was made by `{stage.command}`"
            faults.append(Fault(name, "command", text))
        faults += _inputs(stage, lock, tracked, data)
        faults += _outputs(stage, graph[name], tracked)
    return faults


class Tree:
    """The files of a commit and the hashes DVC would give them."""

    def __init__(self, repository: Repository, commit: str) -> None:
        self._repository, self._commit = repository, commit
        self.files = repository.files(commit)

    def md5(self, path: str) -> str | None:
        """Hash of a file or directory of the commit; None where it has none."""
        if path in self.files:
            content = self._repository.read(self._commit, path)
            return None if content is None else md5_bytes(content)
        names = [name for name in self.files if inside(name, path)]
        if not names:
            return None
        contents = self._repository.read_many(self.files[name] for name in names)
        return md5_listing(
            {name[len(path) + 1 :]: md5_bytes(c) for name, c in zip(names, contents, strict=True) if c is not None}
        )

    def params(self, path: str) -> dict[str, Any]:
        """Values of a parameter file; empty where there is none."""
        return parse_params((self._repository.read(self._commit, path) or b"").decode(), path)


def _parameters(stage: StageRecord, tree: Tree) -> Iterator[Fault]:
    for file, named in stage.params.items():
        values = tree.params(file)
        for name, recorded in named.items():
            try:
                now = parameter(values, name)
            except KeyError:
                now = None
            if now != recorded:
                yield from _changed(stage.name, file, name, recorded, now)


def _changed(stage: str, file: str, name: str, recorded: Any, now: Any) -> Iterator[Fault]:
    if isinstance(recorded, dict) and isinstance(now, dict):
        for key in sorted(recorded.keys() | now.keys()):
            if recorded.get(key) != now.get(key):
                yield from _changed(stage, file, f"{name}.{key}", recorded.get(key), now.get(key))
        return
    yield Fault(stage, "parameter", f"{stage}: {name} is {now!r} in {file}, and was {recorded!r} when the record was made")


def _inputs(stage: StageRecord, lock: Lock, tree: Tree, data: dict[str, str]) -> Iterator[Fault]:
    outs = lock.outs
    for dep in stage.deps:
        if dep.path in outs:
            if (made := outs[dep.path].md5) != dep.md5:
                text = f"{stage.name}: read another {dep.path} ({dep.md5[:8]}) than {lock.producer(dep.path)}"
                yield Fault(stage.name, "chain", f"{text} is recorded to have made ({made[:8]})")
        elif dep.path in data:
            if data[dep.path] != dep.md5:
                text = f"{stage.name}: read another {dep.path} ({dep.md5[:8]}) than its .dvc file names ({data[dep.path][:8]})"
                yield Fault(stage.name, "chain", text)
        elif (now := tree.md5(dep.path)) is None:
            if not PurePosixPath(dep.path).is_absolute() and "://" not in dep.path and not dep.path.startswith(".."):
                yield Fault(stage.name, "missing", f"{stage.name} reads {dep.path}, which is not in this commit")
        elif now != dep.md5:
            text = f"{stage.name}: {dep.path} at this commit ({now[:8]}) is not what made the record ({dep.md5[:8]})"
            yield Fault(stage.name, "code", text)


def _outputs(stage: StageRecord, flags: StageFlags, tree: Tree) -> Iterator[Fault]:
    for out in stage.outs:
        if out.path in flags.uncached and (now := tree.md5(out.path)) != out.md5:
            what = (
                "is not in this commit"
                if now is None
                else f"at this commit ({now[:8]}) is not what was recorded ({out.md5[:8]})"
            )
            yield Fault(stage.name, "file", f"{stage.name}: {out.path} {what}")
