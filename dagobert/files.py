"""Files that appear whole or not at all, and their hashes.

Everything is written beside its final place, flushed to the disk and renamed. The temporary name starts with a dot and ends in
`.partial`, so that a reader, DVC and git never take it for data.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagobert.errors import StorageError

_RUST_ERRNO = re.compile(r"\(os error (\d+)\)")  # how libraries written in Rust (safetensors, tokenizers) report an errno


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(path: Path) -> str:
    """SHA-256 of a file, or of a directory's sorted (relative name, SHA-256) lines."""
    if not path.is_dir():
        return sha256_file(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def partial(path: Path) -> Path:
    """Where `path` is written before it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write; when the block ends without an error it becomes `path`.

    Raises:
        StorageError: the disk is full or not writable; `path` is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = partial(path)
    try:
        with storage_errors(path):
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give a temporary empty directory to fill; when the block ends without an error it becomes `path`.

    What `path` held before is removed only after the new directory is whole and on the disk.

    Raises:
        StorageError: the disk is full or not writable; `path` is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = partial(path)
    old = temporary.with_suffix(".old")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with storage_errors(path):
            temporary.mkdir()
            yield temporary
            for file in sorted(temporary.rglob("*")):
                sync(file)
            sync(temporary)
            if path.exists():
                path.replace(old)
            temporary.replace(path)
            sync(path.parent)
    finally:
        if old.exists() and not path.exists():
            old.replace(path)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that is the same bytes for the same value: two-space indent, keys in the order given, one final newline."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file that Dagobert wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the system's words for a full or closed disk into a `StorageError` that names the file."""
    try:
        yield
    except Exception as error:
        reasons = {
            errno.ENOSPC: "the disk is full: free some space and run again",
            errno.EDQUOT: "your disk quota is used up: free some space and run again",
            errno.EFBIG: "the file is larger than this process may write: raise `ulimit -f` and run again",
            errno.EROFS: "the file system is read-only",
            errno.EACCES: "permission denied: check who owns the directory",
        }
        reason = reasons.get(_errno_of(error) or 0)
        if reason is None:
            raise
        raise StorageError(f"{path}: cannot be written: {reason}. Nothing that stood there was changed.") from error


def _errno_of(error: Exception) -> int | None:
    """The system's error number; safetensors and tokenizers raise errors of their own that only print it."""
    if isinstance(error, OSError):
        return error.errno
    found = _RUST_ERRNO.search(str(error))
    return int(found[1]) if found else None
