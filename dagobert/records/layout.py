"""Which files a path means, and how each is written."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path, PurePath

from dagobert.errors import RecordError

_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSED = (".gz", ".zst", ".zstd", ".bz2")
_FORMATS = "csv, tsv, jsonl, parquet (plain or .gz, .zst, .bz2) or one directory a class"


@dataclass(frozen=True)
class Layout:
    """Files in reading order. `root` is what their names are relative to; `formats` runs parallel to `files`."""

    root: Path
    files: tuple[Path, ...]
    formats: tuple[str, ...]

    def name(self, file: Path) -> str:
        """The file's name in `source_file`: relative to what the user named, with forward slashes."""
        return file.relative_to(self.root).as_posix()

    @property
    def n_bytes(self) -> int:
        """Size of all files together, bytes."""
        return sum(file.stat().st_size for file in self.files)


def format_of(path: PurePath) -> str | None:
    """Format by file name; None if the name says nothing."""
    name = path.name.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return _BY_SUFFIX.get(PurePath(name).suffix)


def find(path: str, format_: str = "auto") -> Layout:
    """The files a user means by `path`: a file, a directory of data files or of class folders, or a glob.

    Raises:
        RecordError: there is nothing, or it cannot be told how it is written.
    """
    at = Path(path)
    if at.is_file():
        return _layout(at.parent, [at], format_, path)
    if at.is_dir():
        return _directory(at, format_, path)
    if glob.has_magic(path):
        names = glob.glob(path, recursive=True)  # noqa: PTH207 - a user's pattern may be absolute
        files = sorted(Path(p) for p in names if Path(p).is_file() and not _hidden(Path(p).name))
        if not files:
            raise RecordError(f"data.path: no file matches {path!r}.")
        return _layout(_fixed_part(path), files, format_, path)
    near = [p.name for p in sorted(at.parent.iterdir()) if not _hidden(p.name)][:10] if at.parent.is_dir() else []
    beside = f" In {at.parent}: {', '.join(near)}." if near else ""
    raise RecordError(f"data.path: there is no file or directory {path!r}.{beside} Set data.path in params.yaml.")


def _directory(at: Path, format_: str, path: str) -> Layout:
    files = sorted(
        (p for p in at.rglob("*") if p.is_file() and not any(map(_hidden, p.relative_to(at).parts))),
        key=lambda p: p.relative_to(at).as_posix(),
    )
    if not files:
        raise RecordError(
            f"data.path: the directory {path!r} is empty. Set data.source so that `fetch` fills it, or set data.path."
        )
    in_folders = [p for p in files if p.parent != at]
    known = [p for p in files if format_of(p) is not None]
    if format_ == "folders" or (format_ == "auto" and not known and in_folders):
        if not in_folders:
            raise RecordError(f"data.path: {path!r} holds no class folders: its {len(files)} files lie beside each other.")
        return Layout(at, tuple(in_folders), ("folders",) * len(in_folders))
    return _layout(at, known if format_ == "auto" and known else files, format_, path)


def _layout(root: Path, files: list[Path], format_: str, path: str) -> Layout:
    if format_ == "folders":
        raise RecordError(f"data.format is folders, but data.path {path!r} is no directory of class folders.")
    formats = [format_of(p) if format_ == "auto" else format_ for p in files]
    for file, found in zip(files, formats, strict=True):
        if found is None:
            raise RecordError(f"{file}: its name does not tell its format. Set data.format in params.yaml: {_FORMATS}.")
    return Layout(root, tuple(files), tuple(f for f in formats if f is not None))


def _fixed_part(pattern: str) -> Path:
    parts = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts) if parts else Path()


def _hidden(name: str) -> bool:
    return name.startswith((".", "__"))
