"""Which cache object belongs to what: every `dvc.lock` and `.dvc` file that any branch, tag, experiment or stash can reach.

What is in here is needed by somebody; what is not may be removed. Read through git alone: 0.2 s for a history of 1,000 locks
(one `git log`, one `git cat-file`), where asking DVC per revision would take hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dagobert.clones import workplaces
from dagobert.errors import DagobertError
from dagobert.lockfile import Entry, parse_data_file, parse_lock
from dagobert.repository import LOCK, Repository


@dataclass
class Reference:
    """One object: the paths it is the content of, the stages that make it, and where it was recorded (names, then commits)."""

    paths: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def add(self, path: str, stage: str | None, place: str) -> None:
        """Note one more use."""
        for values, value in ((self.paths, path), (self.stages, stage), (self.places, place)):
            if value is not None and value not in values:
                values.append(value)


def references(repository: Repository) -> dict[str, Reference]:
    """{object hash: what it belongs to} for all that is recorded anywhere, here too; files of directories as well."""
    found: dict[str, Reference] = {}
    for place, stage, entry in _recorded(repository):
        found.setdefault(entry.md5, Reference()).add(entry.path, stage, place)
    for md5, reference in list(found.items()):
        if md5.endswith(".dir"):
            with suppress(DagobertError):  # a listing that is gone or damaged cannot tell what it held
                for name, inner in repository.cache.listing(md5).items():
                    for path in reference.paths:
                        item = found.setdefault(inner, Reference())
                        for place in reference.places:
                            item.add(f"{path}/{name}", reference.stages[0] if reference.stages else None, place)
    return found


def names(repository: Repository) -> dict[str, list[str]]:
    """{commit: what people call it}: branches, tags, experiments; remote branches and DVC's own refs left out."""
    named: dict[str, list[str]] = {}
    listing = repository.git("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)", "refs/heads", "refs/tags")
    for line in listing.splitlines():
        name, *commits = line.split()
        named.setdefault(commits[-1], []).append(name.split("/", 2)[2])
    for experiment in repository.experiments():
        named.setdefault(experiment.commit, []).append(experiment.name)
    return named


def _recorded(repository: Repository) -> Iterator[tuple[str, str | None, Entry]]:
    """(place, stage, entry) of every output in every record."""
    here = repository.root / LOCK
    if here.is_file():
        yield from _of_lock("the working tree", here.read_text(encoding="utf-8"))
    yield from (("the working tree", None, entry) for entry in repository.data_files_here())
    yield from _uncommitted_elsewhere(repository)
    if repository.head() is None:
        return
    called = names(repository)
    for path, blobs in repository.history("*.dvc", LOCK).items():
        for commits, content in zip(blobs.values(), repository.read_many(blobs), strict=True):
            named = [name for commit in commits for name in called.get(commit, [])]
            places = [*named, *(commit[:10] for commit in commits if commit not in called)][:4]
            text = (content or b"").decode(errors="replace")
            for place in places:
                with suppress(DagobertError):  # an unreadable record of the past needs nothing that could be found
                    if path.endswith(".dvc"):
                        yield from ((place, None, entry) for entry in parse_data_file(text, path))
                    else:
                        yield from _of_lock(place, text)


def _uncommitted_elsewhere(repository: Repository) -> Iterator[tuple[str, str | None, Entry]]:
    """What runs at work in a clone have made so far, and those that failed: no commit names it yet."""
    for path in workplaces(repository.root):
        place = f"the clone {path.name}"
        with suppress(DagobertError, OSError):  # a clone in the making, or one that goes at this moment
            if (path / LOCK).is_file():
                yield from _of_lock(place, (path / LOCK).read_text(encoding="utf-8"))
            if (path / ".git").exists():
                yield from ((place, None, entry) for entry in Repository(path).data_files_here())


def _of_lock(place: str, text: str) -> Iterator[tuple[str, str | None, Entry]]:
    for stage in parse_lock(text).stages.values():
        yield from ((place, stage.name, out) for out in stage.outs)


def run_cache_entries(repository: Repository) -> Iterator[tuple[Path, list[Entry]]]:
    """Files of DVC's run cache with the outputs they would restore; damaged ones with none."""
    for path in sorted((repository.cache.directory / "runs").glob("*/*/*")):
        if path.is_file():
            try:
                record = parse_lock("stages:\n  run:\n" + "".join(f"    {line}\n" for line in path.read_text().splitlines()))
                yield path, list(record.stages["run"].outs)
            except (DagobertError, UnicodeDecodeError, KeyError):
                yield path, []
