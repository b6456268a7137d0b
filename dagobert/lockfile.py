"""What DVC wrote down: `dvc.lock` and `*.dvc` files as plain values, and which stage feeds which.

Pure: text in, values out; git and the disk are `repository.py`'s business. `dvc.lock` holds resolved paths and commands, so the
order of the stages is read from it and no template of `dvc.yaml` needs to be understood. `dvc.yaml` is asked for flags only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dagobert.errors import RepositoryError

_TEMPLATE = re.compile(r"\$\{\s*([\w.-]+)\s*\}")


@dataclass(frozen=True)
class Entry:
    """A file or directory and the hash DVC recorded of it; a directory's hash ends in `.dir`."""

    path: str
    md5: str
    size: int | None = None

    @property
    def is_directory(self) -> bool:
        """Whether the hash is that of a directory listing."""
        return self.md5.endswith(".dir")


@dataclass(frozen=True)
class StageRecord:
    """What one stage read and made when it last ran. `params` maps a file to {parameter name: value}."""

    name: str
    command: str
    deps: tuple[Entry, ...]
    params: dict[str, dict[str, Any]]
    outs: tuple[Entry, ...]


@dataclass(frozen=True)
class Lock:
    """A `dvc.lock`."""

    stages: dict[str, StageRecord]

    @property
    def outs(self) -> dict[str, Entry]:
        """Every output by path."""
        return {out.path: out for stage in self.stages.values() for out in stage.outs}

    def producer(self, path: str) -> str | None:
        """The stage that makes a path, or the directory it lies in."""
        for stage in self.stages.values():
            if any(inside(path, out.path) for out in stage.outs):
                return stage.name
        return None

    def order(self) -> list[str]:
        """Stage names, each after those that feed it; the file's own order where it does not matter."""
        done: list[str] = []
        todo = list(self.stages)
        while todo:
            ready = [name for name in todo if not (self.upstream(name) - set(done) - {name})]
            if not ready:
                raise RepositoryError(f"dvc.lock: the stages {', '.join(todo)} feed each other in a circle.")
            done += ready
            todo = [name for name in todo if name not in done]
        return done

    def upstream(self, name: str) -> set[str]:
        """Stages whose outputs a stage reads directly."""
        found = {self.producer(dep.path) for dep in self.stages[name].deps}
        return {stage for stage in found if stage is not None}

    def downstream(self, name: str) -> set[str]:
        """A stage and all that it feeds, directly or not."""
        found = {name}
        for stage in self.order():
            if self.upstream(stage) & found:
                found.add(stage)
        return found


@dataclass(frozen=True)
class StageFlags:
    """What `dvc.yaml` says of a stage beyond the lock: which outputs are not cached, kept while it runs, or metrics."""

    command: str
    uncached: frozenset[str] = field(default_factory=frozenset)
    persisted: frozenset[str] = field(default_factory=frozenset)
    metrics: tuple[str, ...] = ()


def inside(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or lies in it."""
    return PurePosixPath(path).is_relative_to(PurePosixPath(directory))


@lru_cache(maxsize=1024)
def parse_lock(text: str, where: str = "dvc.lock") -> Lock:
    """Read a `dvc.lock`.

    Raises:
        RepositoryError: it is no valid lock file.
    """
    stages = (_yaml(text, where) or {}).get("stages") or {}
    records = {}
    for name, values in stages.items():
        records[str(name)] = StageRecord(
            name=str(name),
            command=_command(values.get("cmd")),
            deps=_entries(values.get("deps")),
            params={str(file): dict(named or {}) for file, named in (values.get("params") or {}).items()},
            outs=_entries(values.get("outs")),
        )
    return Lock(records)


@lru_cache(maxsize=1024)
def parse_data_file(text: str, where: str) -> tuple[Entry, ...]:
    """Outputs of a `.dvc` file, as paths from the repository root; `where` is the file's own path."""
    folder = PurePosixPath(where).parent
    entries = _entries((_yaml(text, where) or {}).get("outs"))
    return tuple(Entry((folder / entry.path).as_posix(), entry.md5, entry.size) for entry in entries)


def parse_graph(text: str, params: dict[str, Any], where: str = "dvc.yaml") -> dict[str, StageFlags]:
    """Read the flags of `dvc.yaml`, with `${…}` filled in from the parameters."""
    stages = (_yaml(text, where) or {}).get("stages") or {}
    return {str(name): _flags(values or {}, params) for name, values in stages.items()}


def parameter(params: dict[str, Any], name: str) -> Any:
    """The value of a dotted name.

    Raises:
        KeyError: there is none.
    """
    value: Any = params
    for part in name.split("."):
        if not isinstance(value, dict):
            raise KeyError(name)
        value = value[part]
    return value


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as {dotted name: value}; lists are values."""
    if not isinstance(values, dict) or not values:
        return {prefix: values} if prefix else {}
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flatten(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def parse_params(text: str, where: str = "params.yaml") -> dict[str, Any]:
    """Plain values of a parameter file, by the YAML 1.2 rules."""
    return dict(_yaml(text, where, pure=True) or {})


def _flags(values: dict[str, Any], params: dict[str, Any]) -> StageFlags:
    uncached, persisted, metrics = set(), set(), []
    for kind in ("outs", "metrics", "plots"):
        for path, flags in _named(values.get(kind), params):
            if flags.get("cache") is False:
                uncached.add(path)
            if flags.get("persist"):
                persisted.add(path)
            if kind == "metrics":
                metrics.append(path)
    return StageFlags(_filled(_command(values.get("cmd")), params), frozenset(uncached), frozenset(persisted), tuple(metrics))


def _named(entries: Any, params: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in entries or []:
        if isinstance(entry, dict):
            yield from ((_filled(str(path), params), dict(flags or {})) for path, flags in entry.items())
        else:
            yield _filled(str(entry), params), {}


def _filled(text: str, params: dict[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        try:
            return str(parameter(params, match[1]))
        except KeyError:
            return match[0]

    return _TEMPLATE.sub(value, text)


def _command(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _entries(values: Any) -> tuple[Entry, ...]:
    found = []
    for value in values or []:
        digest = value.get("md5")
        if digest is None and isinstance(value.get("files"), list):
            digest = ""  # a versioned remote: no hash of its own
        found.append(Entry(str(value["path"]), str(digest or ""), value.get("size")))
    return tuple(found)


def _yaml(text: str, where: str, *, pure: bool = False) -> Any:
    try:
        loaded = YAML(typ="safe", pure=pure).load(text)
    except YAMLError as error:
        raise RepositoryError(f"{where}: not valid YAML: {error}") from error
    if loaded is not None and not isinstance(loaded, dict):
        raise RepositoryError(f"{where}: expected a mapping, found {type(loaded).__name__}.")
    return loaded
