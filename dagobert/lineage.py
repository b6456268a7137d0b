"""Where a file came from: a model, shards, a report, any output is found by its content in everything that was ever recorded.

A stage writes no commit into its outputs: the same tree must give the same bytes in the checkout, in a clone and on another
machine. The hash of the file leads to the records instead, and a record proves by the hashes of code and the values of
parameters whether it was made from exactly its commit. So a dirty tree cannot hide, and a copied model keeps its history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dagobert import files
from dagobert.errors import RepositoryError
from dagobert.lockfile import Lock, StageRecord, flatten
from dagobert.objects import md5_bytes, md5_path
from dagobert.record import record_faults
from dagobert.references import Reference, references
from dagobert.repository import LOCK, Repository

FACTS = ("dagobert.json", "manifest.json", "source.json")


@dataclass(frozen=True)
class Origin:
    """One record that holds the file. `dirty`: what of the record does not fit the commit it stands in; empty: all fits.

    `params` are those of the stage that made it, `upstream` those of the stages that fed it, from the source of the data on.
    """

    place: str
    commit: str | None
    when: str | None
    who: str | None
    stage: str | None
    lock_md5: str | None
    dirty: tuple[str, ...] = ()
    inputs: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    upstream: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inspection:
    """What is known of a file or directory."""

    path: str
    md5: str
    what: str
    facts: dict[str, Any]
    origins: tuple[Origin, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "origins": [vars(origin) for origin in self.origins]}


def inspect(repository: Repository, path: Path) -> Inspection:
    """Find where a file or directory came from.

    Raises:
        RepositoryError: there is no such file.
    """
    if not path.exists():
        raise RepositoryError(f"{path}: no such file or directory.")
    known = references(repository)
    md5 = md5_path(path)
    reference, what = _find(path, md5, known)
    places = reference.places if reference else []
    origins = tuple(_origin(repository, place, reference) for place in places if reference)
    return Inspection(str(path), md5, what, _facts(path), origins)


def _find(path: Path, md5: str, known: dict[str, Reference]) -> tuple[Reference | None, str]:
    """The record of the whole, or of the part that matters most."""
    if md5 in known:
        return known[md5], f"exactly {known[md5].paths[0]} as it was recorded"
    if path.is_dir():
        for part in sorted(path.rglob("*"), key=lambda file: (file.suffix != ".safetensors", str(file))):
            if part.is_file() and (found := known.get(md5_path(part))) is not None:
                return found, f"not recorded as a whole; {part.name} in it is {found.paths[0]} as it was recorded"
    return None, "not recorded anywhere in this repository: made elsewhere, edited, or made and never committed"


def _origin(repository: Repository, place: str, reference: Reference) -> Origin:
    if place == "the working tree":
        return _here(repository, place, reference)
    commit = repository.resolve(place)
    when, who = repository.git("show", "--no-patch", "--format=%cI%x00%an", commit).split("\0")
    stage = _stage(repository.lock(commit), reference)
    dirty = tuple(fault.text for fault in record_faults(repository, commit))
    lock = repository.read(commit, LOCK) or b""
    return Origin(place, commit, when, who, stage[0], md5_bytes(lock), dirty, *stage[1:])


def _here(repository: Repository, place: str, reference: Reference) -> Origin:
    lock = repository.lock_here()
    stage = _stage(lock, reference)
    modified = tuple(f"{name} is not as in the commit that is checked out" for name in repository.modified())
    content = (repository.root / LOCK).read_bytes() if lock else b""
    return Origin(place, repository.head(), None, None, stage[0], md5_bytes(content), modified, *stage[1:])


def _stage(lock: Lock | None, reference: Reference) -> tuple[str | None, dict[str, str], dict[str, Any], dict[str, Any]]:
    """The stage that made it, its inputs and parameters, and the parameters of all stages that fed it."""
    record = lock.stages.get(reference.stages[0]) if lock and reference.stages else None
    if lock is None or record is None:
        return None, {}, {}, {}
    inputs = {dep.path: dep.md5 for dep in record.deps}
    ours = _params(record)
    upstream: dict[str, Any] = {}
    for name in lock.order():
        if record.name in lock.downstream(name) - {name}:
            upstream |= _params(lock.stages[name])
    return record.name, inputs, ours, {name: value for name, value in upstream.items() if name not in ours}


def _params(record: StageRecord) -> dict[str, Any]:
    return {name: value for values in record.params.values() for name, value in flatten(values).items()}


def _facts(path: Path) -> dict[str, Any]:
    """What the file says of itself."""
    for name in FACTS:
        file = path / name if path.is_dir() else path
        if file.name == name and file.is_file():
            try:
                found = files.read_json(file)
            except ValueError:
                continue
            return dict(found) if isinstance(found, dict) else {}
    return {}


def text(found: Inspection) -> str:
    """The answer for a terminal."""
    return "\n".join(_lines(found))


def _lines(found: Inspection) -> Iterator[str]:
    yield f"{found.path}: {found.what} (MD5 {found.md5})"
    for origin in found.origins:
        signed = f", {origin.when} by {origin.who}" if origin.when else ""
        commit = f" ({origin.commit[:10]})" if origin.commit and origin.place != origin.commit[:10] else ""
        yield ""
        yield f"{origin.place}{commit}{signed}"
        yield f"  made by    {origin.stage or 'hand (dvc add)'}"
        yield f"  dvc.lock   MD5 {origin.lock_md5}"
        if origin.dirty:
            yield "  DIRTY      not made from exactly this commit:"
            yield from (f"             {text}" for text in origin.dirty)
        elif origin.commit is not None:
            yield "  clean      made from exactly this commit"
        for title, values in (("inputs", origin.inputs), ("params", origin.params), ("upstream", origin.upstream)):
            for number, (name, value) in enumerate(values.items()):
                yield f"  {title if number == 0 else '':10} {name}: {value}"
    if found.facts:
        yield ""
        yield "It says of itself:"
        yield from (f"  {name}: {value}" for name, value in flatten(found.facts).items())
