"""Recorded bytes of a commit's outputs, taken from the cache or from git into a directory of their own, each byte checked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from dagobert.errors import DagobertError, DamagedObjectError, RepositoryError
from dagobert.lockfile import Lock, StageFlags
from dagobert.objects import md5_path
from dagobert.repository import Repository


class Recorded:
    """Outputs of one commit, restored when they are asked for."""

    def __init__(self, repository: Repository, commit: str, folder: Path) -> None:
        self.repository, self.commit, self.folder = repository, commit, folder
        self._problems: dict[str, str] = {}

    @cached_property
    def lock(self) -> Lock:
        """`dvc.lock` at the commit."""
        return self.repository.lock(self.commit)

    @cached_property
    def graph(self) -> dict[str, StageFlags]:
        """The flags of `dvc.yaml` at the commit."""
        return self.repository.graph(self.commit)

    def path(self, name: str) -> Path | None:
        """Where the recorded bytes of an output lie; None where they cannot be had (`problem` says why)."""
        target = self.folder / name
        if target.exists():
            return target
        if name not in self.lock.outs:
            self._problems[name] = f"{name} is no output that {self.commit[:10]} recorded."
            return None
        try:
            self._restore(name, target)
        except DagobertError as error:
            self._problems[name] = str(error)
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)  # or it would pass the next time
            return None
        return target

    def require(self, name: str) -> Path:
        """Like `path`.

        Raises:
            RepositoryError: the bytes cannot be had.
        """
        found = self.path(name)
        if found is None:
            raise RepositoryError(f"{name} at {self.commit[:10]}: {self.problem(name)}")
        return found

    def problem(self, name: str) -> str:
        """Why an output's recorded bytes cannot be had."""
        return self._problems.get(name, "")

    def remove(self) -> None:
        """Delete the copies."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _restore(self, name: str, target: Path) -> None:
        entry = self.lock.outs[name]
        if any(name in flags.uncached for flags in self.graph.values()):
            self._from_git(name, target)
        else:
            self.repository.cache.restore(entry, target)
        if md5_path(target) != entry.md5:
            raise DamagedObjectError(f"{name} at {self.commit[:10]} is not what dvc.lock recorded.")

    def _from_git(self, name: str, target: Path) -> None:
        names = list(self.repository.files(self.commit, name))
        if not names:
            raise RepositoryError(f"{name} is not in commit {self.commit[:10]}.")
        contents = self.repository.read_many(f"{self.commit}:{file}" for file in names)
        for file, content in zip(names, contents, strict=True):
            path = target.parent / Path(file).relative_to(Path(name).parent)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content or b"")


@contextmanager
def recorded_outputs(repository: Repository, commit: str) -> Iterator[Recorded]:
    """Outputs of a commit in a temporary directory."""
    with TemporaryDirectory(prefix="dagobert-") as folder:
        yield Recorded(repository, commit, Path(folder))
