"""DVC's cache on this disk: objects whose file name is the MD5 of their bytes, and directories as JSON lists of them.

Everything that is read from here is hashed on the way, because neither `dvc checkout` nor `dvc status` notices a flipped
byte in the cache. MD5 names content here; it guards against damage, not against an attacker.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dagobert import files
from dagobert.errors import DamagedObjectError
from dagobert.lockfile import Entry

State = Literal["whole", "missing", "damaged"]


@dataclass(frozen=True)
class Cache:
    """A DVC cache directory (the one that holds `files/md5`)."""

    directory: Path

    def path(self, md5: str) -> Path:
        """Where the object of a hash lies."""
        return self.directory / "files" / "md5" / md5[:2] / md5[2:]

    def state(self, md5: str) -> State:
        """Hash one object; a directory's listing only, not the files it lists."""
        if not is_hash(md5):
            return "missing"
        try:
            found = md5_file(self.path(md5))
        except FileNotFoundError:
            return "missing"
        return "whole" if found == md5.removesuffix(".dir") else "damaged"

    def listing(self, md5: str) -> dict[str, str]:
        """Files of a directory object: {relative path: MD5}.

        Raises:
            DamagedObjectError: the listing is missing or damaged.
        """
        return parse_listing(self.read(md5))

    def read(self, md5: str) -> bytes:
        """Bytes of an object, checked.

        Raises:
            DamagedObjectError: it is missing, or its bytes are not those its name says.
        """
        path = self.path(md5)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise DamagedObjectError(f"{path}: not in the cache. Try `dvc pull`.") from None
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5.removesuffix(".dir"):
            raise DamagedObjectError(f"{path}: damaged: its bytes are not those its name says. Run `dagobert fsck`.")
        return content

    def faults(self, entry: Entry) -> dict[str, State]:
        """What is wrong with an entry, file by file: {path: missing or damaged}; empty when all of it is whole."""
        state = self.state(entry.md5)
        if state != "whole" or not entry.is_directory:
            return {} if state == "whole" else {entry.path: state}
        states = {f"{entry.path}/{name}": self.state(md5) for name, md5 in sorted(self.listing(entry.md5).items())}
        return {path: state for path, state in states.items() if state != "whole"}

    def restore(self, entry: Entry, target: Path) -> None:
        """Copy an entry's bytes to `target`, checking every one; copies, so that nothing can write into the cache.

        Raises:
            DamagedObjectError: names the object that is missing or damaged; `target` is not left half-written.
        """
        if not entry.is_directory:
            self._copy(entry.md5, target)
            return
        listing = self.listing(entry.md5)
        with files.atomic_directory(target) as folder:
            for name, md5 in listing.items():
                self._copy(md5, folder / name)

    def objects(self) -> Iterator[str]:
        """Hash of every object in the cache, sorted."""
        base = self.directory / "files" / "md5"
        for folder in sorted(base.iterdir()) if base.is_dir() else []:
            if folder.is_dir() and len(folder.name) == 2:
                yield from (folder.name + path.name for path in sorted(folder.iterdir()) if is_hash(folder.name + path.name))

    def _copy(self, md5: str, target: Path) -> None:
        source = self.path(md5)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError:
            raise DamagedObjectError(f"{source}: not in the cache ({target.name}). Try `dvc pull`.") from None
        if md5_file(target) != md5:
            target.unlink()
            raise DamagedObjectError(f"{source}: damaged: its bytes are not those its name says ({target.name}).")


def is_hash(name: str) -> bool:
    """Whether a name is that of a cache object."""
    digits = name.removesuffix(".dir")
    return len(digits) == 32 and all(c in "0123456789abcdef" for c in digits)


def md5_file(path: Path) -> str:
    """MD5 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def md5_bytes(content: bytes) -> str:
    """MD5 of bytes."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def md5_listing(listing: dict[str, str]) -> str:
    """The hash DVC gives a directory of {relative path: MD5}."""
    entries = [{"md5": listing[name], "relpath": name} for name in sorted(listing)]
    return md5_bytes(json.dumps(entries, sort_keys=True).encode()) + ".dir"


def md5_path(path: Path) -> str:
    """The hash DVC gives a file or directory on the disk (no .dvcignore inside outputs)."""
    if not path.is_dir():
        return md5_file(path)
    return md5_listing({name: md5_file(path / name) for name in relative_files(path)})


def relative_files(directory: Path) -> list[str]:
    """Every file below a directory, as sorted posix paths."""
    found = []
    for folder, folders, names in os.walk(directory):
        folders.sort()
        found += [(Path(folder) / name).relative_to(directory).as_posix() for name in names]
    return sorted(found)


def parse_listing(content: bytes) -> dict[str, str]:
    """A directory object's JSON as {relative path: MD5}."""
    return {str(item["relpath"]): str(item["md5"]) for item in json.loads(content)}


def total_size(paths: Iterable[Path]) -> int:
    """Bytes of files that exist."""
    return sum(path.stat().st_size for path in paths if path.is_file())
