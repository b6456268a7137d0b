"""Zip and tar files → plain files, without trusting them.

Nothing leaves the target directory, links and devices are refused, and so is an archive that unpacks to more bytes than allowed
or to more than 200 times its size (text packs 3 to 30 times).
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import pyarrow as pa

from dagobert import events
from dagobert.errors import DagobertError, SourceError
from dagobert.files import storage_errors

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_MAX_RATIO = 200
_ALWAYS_ALLOWED = 10 << 20  # bytes below which the ratio is not looked at
_MAX_FILES = 1_000_000
_CHUNK = 1 << 20


def is_archive(name: str) -> bool:
    """Whether a file name says zip or tar. (`.csv.gz` is no archive: it is read as it is.)"""
    return name.lower().endswith((".zip", *_TAR))


def unpack(archive: Path, name: str, target: Path, max_bytes: int) -> None:
    """Unpack `archive`, which was called `name`, into the empty directory `target`.

    Raises:
        SourceError: damaged, encrypted, too big, or a member that would leave the directory.
    """
    room = min(max_bytes, max(_ALWAYS_ALLOWED, _MAX_RATIO * archive.stat().st_size))
    written = files = 0
    seen: set[str] = set()
    read = _zip if name.lower().endswith(".zip") else _tar
    with _damage(name), closing(read(archive, name)) as members:  # noqa: SIM117 - two lines read better
        with events.progress("unpacking", unit="MB") as bar:
            for member, stream in members:
                place = _place(member, name, seen)
                if place is None:
                    continue
                with _create(target / place, name) as out:
                    while piece := stream.read(_CHUNK):
                        before, written = written, written + len(piece)
                        if written > room:
                            raise SourceError(
                                f"data.source: {name} unpacks to more than {room:,} bytes "
                                f"(data.max_bytes, or {_MAX_RATIO} times its size): it is not unpacked."
                            )
                        with storage_errors(target / place):
                            out.write(piece)
                        bar.update((written >> 20) - (before >> 20))
                files += 1
                if files > _MAX_FILES:
                    raise SourceError(f"data.source: {name} holds more than {_MAX_FILES:,} files.")
    if not files:
        raise SourceError(f"data.source: {name} holds no files.")


@contextmanager
def _damage(name: str) -> Iterator[None]:
    """Damage makes zipfile and tarfile raise nearly anything, from BadZipFile to struct.error and OSError."""
    try:
        yield
    except DagobertError:
        raise
    except Exception as error:
        raise SourceError(f"data.source: {name} is damaged or no archive of its kind ({error}).") from error


def _create(path: Path, name: str) -> IO[bytes]:
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("xb")
    except OSError as error:
        raise SourceError(
            f"data.source: {name} holds a name that cannot be made here, or stands for a file and a directory ({error})."
        ) from error


def _place(member: str, name: str, seen: set[str]) -> PurePosixPath | None:
    """Where a member goes, relative to the target; None for what only some system needs."""
    path = PurePosixPath(member)
    outside = (
        path.is_absolute() or ".." in path.parts or "\\" in member or "\0" in member or (len(member) > 1 and member[1] == ":")
    )
    if outside:
        raise SourceError(f"data.source: {name} holds {member!r}, which points outside of it: it is not unpacked.")
    if any(part.startswith((".", "__MACOSX")) for part in path.parts):
        return None
    if str(path) in seen:
        raise SourceError(f"data.source: {name} holds {member!r} twice: it is not unpacked.")
    seen.add(str(path))
    return path


def _zip(archive: Path, name: str) -> Generator[tuple[str, IO[bytes]], None, None]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if info.is_dir():
                continue
            kind = info.external_attr >> 16
            if stat.S_IFMT(kind) not in (0, stat.S_IFREG):
                raise SourceError(
                    f"data.source: {name} holds {info.filename!r}, which is a link or device: it is not unpacked."
                )
            if info.flag_bits & 1:
                raise SourceError(f"data.source: {name} is encrypted. Unpack it yourself, and give the directory.")
            with file.open(info) as stream:
                yield info.filename, stream


def _tar(archive: Path, name: str) -> Generator[tuple[str, IO[bytes]], None, None]:
    with archive.open("rb") as raw:
        zstd = name.lower().endswith(("zst",))
        stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") if zstd else raw
        with tarfile.open(fileobj=stream, mode="r|" if zstd else "r|*") as file:
            for info in file:
                if info.isdir():
                    continue
                if not info.isreg():
                    raise SourceError(
                        f"data.source: {name} holds {info.name!r}, which is a link or device: it is not unpacked."
                    )
                member = file.extractfile(info)
                assert member is not None, "a regular file has content"
                yield info.name, member
