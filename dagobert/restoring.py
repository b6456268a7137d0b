"""Make the working tree that of another commit, model and lock together, and lose nothing that cannot be had again.

git and `dvc checkout --force` overwrite what is in their way. So everything they would overwrite is hashed first, and bytes
that are recorded nowhere, or that the cache does not hold, stop it before anything is touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from dagobert.errors import RepositoryError
from dagobert.fsck import aside, set_aside
from dagobert.lockfile import Entry
from dagobert.objects import md5_file, relative_files
from dagobert.references import references
from dagobert.repository import Repository

_NAMED = 5  # files that a message names


def restore(repository: Repository, commit: str) -> None:
    """Make the working tree that of a commit without moving HEAD.

    Raises:
        RepositoryError: files would be lost, or bytes cannot be had; nothing was touched then.
    """
    check(repository, commit)
    put(repository, commit)


def check(repository: Repository, commit: str) -> None:
    """Have every byte that a commit needs in the cache, and make sure that nothing would be lost by restoring it.

    Raises:
        RepositoryError: what would be lost, or cannot be had; the working tree is as it was.
    """
    if modified := list(_unrecorded(repository)):
        raise RepositoryError(f"not restored: {_listed(modified)} would be lost. Commit or stash them first, then again.")
    graph, lock = repository.graph(commit), repository.lock(commit)
    uncached = frozenset().union(*(flags.uncached for flags in graph.values()))
    wanted = [*(out for out in lock.outs.values() if out.path not in uncached), *repository.data_files(commit)]
    added = repository.data_files_here(untracked=True)  # `dvc checkout` looks at these as well
    try:
        obtain(repository, commit, wanted)
        _require(repository, added)
    except RepositoryError as error:
        raise RepositoryError(f"not restored: {error}") from None
    if lost := sorted(set(_lost(repository, commit, [*wanted, *added]))):
        raise RepositoryError(
            f"not restored: {_listed(lost)} would be overwritten, and these bytes are recorded nowhere else. Keep what you "
            "need (`dvc add` or `dvc commit` it, and commit), move the rest away, then again."
        )


def _unrecorded(repository: Repository) -> Iterator[str]:
    """Modified files that git tracks, and whose bytes no commit has: what was restored before is not among them."""
    modified = [path for path in repository.modified() if (repository.root / path).exists()]
    recorded = repository.history(*(f":(literal){path}" for path in modified)) if modified else {}
    for path in modified:
        if repository.git("hash-object", "--", path) not in recorded.get(path, {}):
            yield path


def put(repository: Repository, commit: str) -> None:
    """Overwrite the working tree with what a commit recorded; `check` comes first."""
    repository.git("restore", f"--source={commit}", "--worktree", "--", ":/")
    repository.dvc("checkout", "--force", "--quiet")


def obtain(repository: Repository, commit: str, entries: Iterable[Entry]) -> None:
    """Have every byte of what a commit recorded in the cache; what is not there whole is fetched from the DVC remote.

    Raises:
        RepositoryError: names what cannot be had.
    """
    entries = list(entries)
    lacking = [entry for entry in entries if repository.cache.faults(entry)]
    failure = pull(repository, commit, lacking) if lacking and repository.remotes else None
    _require(repository, lacking, failure)


def pull(repository: Repository, commit: str, entries: Iterable[Entry]) -> str | None:
    """Fetch what a commit recorded from the remote into the cache; why that failed, or None.

    Damaged objects are set aside meanwhile, or DVC would keep them; what did not come is put back where it was.
    """
    moved, failure = list(_set_aside(repository, entries)), None
    with repository.clone(commit, share_cache=True) as clone:
        try:
            clone.dvc("fetch", *(entry.path for entry in entries))
        except RepositoryError as error:
            failure = str(error).splitlines()[-1]
    for path in moved:
        if not path.exists():
            shutil.move(aside(repository, path), path)
    return failure


def _set_aside(repository: Repository, entries: Iterable[Entry]) -> Iterator[Path]:
    cache = repository.cache
    for entry in entries:
        listing = entry.is_directory and cache.state(entry.md5) == "whole"
        for md5 in {entry.md5, *(cache.listing(entry.md5).values() if listing else ())}:
            if cache.state(md5) == "damaged":
                set_aside(repository, cache.path(md5))
                yield cache.path(md5)


def _require(repository: Repository, entries: Iterable[Entry], failure: str | None = None) -> None:
    faults = [f"{path} ({state})" for entry in entries for path, state in repository.cache.faults(entry).items()]
    if faults:
        remotes = ", ".join(repository.remotes)
        way = f"the remote {remotes} did not give it" if remotes else "no DVC remote is set: whoever made it may have a copy"
        said = f" ({failure})" if failure else ""
        raise RepositoryError(f"{_listed(faults)} in the cache; {way}{said}. dagobert fsck names every way back.")


def _lost(repository: Repository, commit: str, entries: Iterable[Entry]) -> Iterator[str]:
    """Files of the working tree that would be overwritten, and whose bytes could not be had again."""
    tracked = set(repository.git("ls-files", "-z").split("\0"))  # no modified one among them that no commit has
    known = references(repository)
    for path, same in (*_git_changes(repository, commit, tracked), *_dvc_changes(repository, entries)):
        if path not in tracked and not same:
            md5 = md5_file(repository.root / path)
            if md5 not in known or repository.cache.state(md5) != "whole":
                yield path


def _git_changes(repository: Repository, commit: str, tracked: set[str]) -> Iterator[tuple[str, bool]]:
    """(file that git does not track and would overwrite, whether it has the same bytes already)."""
    for target, blob in repository.files(commit).items():
        if target not in tracked:
            for path in _in_the_way(repository.root, target):
                yield path, path == target and repository.git("hash-object", "--", path) == blob


def _dvc_changes(repository: Repository, entries: Iterable[Entry]) -> Iterator[tuple[str, bool]]:
    """(file that DVC would overwrite or remove, whether it has the same bytes already)."""
    for entry in entries:
        wanted = {entry.path: entry.md5}
        if entry.is_directory:
            wanted = {f"{entry.path}/{name}": md5 for name, md5 in repository.cache.listing(entry.md5).items()}
        for path in _in_the_way(repository.root, entry.path):
            yield path, md5_file(repository.root / path) == wanted.get(path)


def _in_the_way(root: Path, target: str) -> Iterator[str]:
    """Files at a path, below it, or where it needs a directory."""
    for place in (target, *map(str, PurePosixPath(target).parents)):
        if (root / place).is_file():
            yield place
    if (root / target).is_dir():
        yield from (f"{target}/{name}" for name in relative_files(root / target) if (root / target / name).is_file())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
