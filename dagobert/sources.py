"""URI → local snapshot: fetched beside its place, checked, then moved there whole.

The same bytes again change nothing, not even a time stamp. A download that broke off is taken up where it ended, if the server
says that the file is still the same (`download`).
"""

from __future__ import annotations

import glob
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dagobert import events, files
from dagobert.archives import is_archive, unpack
from dagobert.download import download, is_remote
from dagobert.errors import SourceError
from dagobert.uris import SCHEME, package_path


@dataclass(frozen=True)
class Snapshot:
    """What was fetched. `sha256` is of the file (of an archive: before it was unpacked), or for several files of their sorted
    (name, SHA-256) lines."""

    source: str | None
    sha256: str | None
    n_bytes: int
    n_files: int

    def to_json(self) -> dict[str, str | int | None]:
        """As it is stored in data/source.json."""
        return {"source": self.source, "sha256": self.sha256, "n_bytes": self.n_bytes, "files": self.n_files}


class _UnchangedError(Exception):
    """The snapshot is there already: leave it as it is."""


def local_files(source: str) -> list[tuple[Path, str]] | None:
    """Files of a source on this machine and their names in the snapshot; None for a remote source.

    Raises:
        SourceError: there is nothing.
    """
    if is_remote(source):
        return None
    if source.startswith(SCHEME):
        path = package_path(source)
    elif source.startswith("file://"):
        path = Path(unquote(urlsplit(source).path))
    else:
        path = Path(source).expanduser()
    if path.is_file():
        return [(path, path.name)]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
        return _some([(p, p.relative_to(path).as_posix()) for p in found], source)
    if glob.has_magic(str(path)):
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - a user's pattern may be absolute
        matches = [Path(p) for p in names if Path(p).is_file()]
        root = _common(matches)
        return _some([(p, p.relative_to(root).as_posix()) for p in matches], source)
    near = [p.name for p in sorted(path.parent.iterdir()) if not p.name.startswith(".")][:10] if path.parent.is_dir() else []
    beside = f" In {path.parent}: {', '.join(near)}." if near else ""
    raise SourceError(f"data.source: there is no {source!r}.{beside}")


def fetch(source: str, target: Path, *, sha256: str | None, max_bytes: int, downloads: Path) -> Snapshot:
    """Bring `source` into the directory `target`.

    Args:
        source: package://module/path, a local path or glob, https://…, s3://… or what else fsspec knows. An archive (zip, tar)
            is unpacked.
        target: directory that will hold the snapshot and nothing else.
        sha256: what the source must have, or None.
        max_bytes: largest source accepted.
        downloads: directory where broken downloads wait to be taken up again.
    Raises:
        SourceError: not found, no network, too big, another checksum.
        StorageError: no room for it.
    """
    local = local_files(source)
    try:
        with files.atomic_directory(target) as staging:
            if local is None:
                download(source, staging, max_bytes, downloads)
            else:
                _copy(local, staging, source, target, max_bytes)
            snapshot = describe(source, staging)
            if sha256 is not None and snapshot.sha256 != sha256:
                raise SourceError(
                    f"data.sha256: {source} has SHA-256 {snapshot.sha256}, not {sha256} as params.yaml says: it has changed. "
                    f"If the new data is what you want, set data.sha256 to the new value."
                )
            _unpack(staging, downloads, max_bytes)
            if target.is_dir() and files.sha256_tree(target) == files.sha256_tree(staging):
                raise _UnchangedError
    except _UnchangedError:
        events.say("the source has not changed")
    return snapshot


def _unpack(staging: Path, downloads: Path, max_bytes: int) -> None:
    """Where the snapshot is one archive, put what it holds in its place."""
    found = list(staging.iterdir())
    if len(found) != 1 or not found[0].is_file() or not is_archive(found[0].name):
        return
    downloads.mkdir(parents=True, exist_ok=True)
    archive = files.partial(downloads / found[0].name)
    try:
        shutil.move(found[0], archive)
        unpack(archive, found[0].name, staging, max_bytes)
    finally:
        archive.unlink(missing_ok=True)


def describe(source: str | None, directory: Path) -> Snapshot:
    """Checksum and size of what lies in a directory."""
    found = sorted(p for p in directory.rglob("*") if p.is_file())
    if not found:
        return Snapshot(source, None, 0, 0)
    alone = len(found) == 1 and found[0].parent == directory
    digest = files.sha256_file(found[0]) if alone else files.sha256_tree(directory)
    return Snapshot(source, digest, sum(p.stat().st_size for p in found), len(found))


def _copy(found: list[tuple[Path, str]], staging: Path, source: str, target: Path, max_bytes: int) -> None:
    total = sum(path.stat().st_size for path, _ in found)
    if total > max_bytes:
        raise SourceError(f"data.source: {source} has {total:,} bytes, more than data.max_bytes ({max_bytes:,}) allows.")
    for path, _ in found:
        if path.resolve().is_relative_to(target.resolve()):
            raise SourceError(
                f"data.source: {source} lies in {target}, where the snapshot goes. Set data.source: null to keep it."
            )
    with events.progress("copying", max(total >> 20, 1), unit="MB") as bar:
        done = 0
        for path, name in found:
            place = staging / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
            before, done = done, done + path.stat().st_size
            bar.update((done >> 20) - (before >> 20))


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)


def _some(found: list[tuple[Path, str]], source: str) -> list[tuple[Path, str]]:
    if not found:
        raise SourceError(f"data.source: {source!r} matches no file.")
    return found


def _common(paths: list[Path]) -> Path:
    """The deepest directory that holds all the paths."""
    if not paths:
        return Path()
    parents = [path.parent for path in paths]
    return next(p for p in [parents[0], *parents[0].parents] if all(other.is_relative_to(p) for other in parents))
