"""Sources on this machine. Remote ones: test_download.py."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest

from dagobert import sources
from dagobert.errors import SourceError, StorageError
from dagobert.sources import Snapshot, fetch, local_files


def get(source: str, tmp_path: Path, sha256: str | None = None, max_bytes: int = 1 << 30) -> Snapshot:
    return fetch(source, tmp_path / "raw", sha256=sha256, max_bytes=max_bytes, downloads=tmp_path / "downloads")


def tree(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    at = tmp_path / "mine"
    for name, content in {"a.csv": "text,label\n", "deep/b.csv": "x", "deep/.hidden": "", "__pycache__/c.csv": ""}.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text(content)
    return at


def test_a_file_a_directory_a_glob(files: Path, tmp_path: Path) -> None:
    found = get(str(files / "a.csv"), tmp_path)
    assert tree(tmp_path / "raw") == {"a.csv": b"text,label\n"}
    assert found == Snapshot(str(files / "a.csv"), hashlib.sha256(b"text,label\n").hexdigest(), 11, 1)
    assert get(files.as_uri(), tmp_path).n_files == 2
    assert set(tree(tmp_path / "raw")) == {"a.csv", "deep/b.csv"}
    get(f"{files}/**/b.*", tmp_path)
    assert set(tree(tmp_path / "raw")) == {"b.csv"}
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


def test_a_file_of_a_package(tmp_path: Path) -> None:
    get("package://dagobert/stages/paths.py", tmp_path)
    assert list(tree(tmp_path / "raw")) == ["paths.py"]


def test_the_same_bytes_change_nothing(files: Path, tmp_path: Path) -> None:
    first = get(str(files), tmp_path)
    raw = tmp_path / "raw"
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in [raw, *raw.rglob("*")]}
    assert get(str(files), tmp_path) == first
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in [raw, *raw.rglob("*")]} == before
    (files / "a.csv").write_text("text,label\nnew,1\n")
    assert get(str(files), tmp_path).sha256 != first.sha256
    assert tree(raw)["a.csv"] == b"text,label\nnew,1\n"


def test_another_checksum_leaves_what_was_there(files: Path, tmp_path: Path) -> None:
    get(str(files / "a.csv"), tmp_path)
    before = tree(tmp_path / "raw")
    with pytest.raises(
        SourceError, match=f"data.sha256: .*a.csv has SHA-256 {hashlib.sha256(b'y').hexdigest()}, not {'0' * 64}"
    ):
        (files / "a.csv").write_text("y")
        get(str(files / "a.csv"), tmp_path, sha256="0" * 64)
    assert tree(tmp_path / "raw") == before
    assert get(str(files / "a.csv"), tmp_path, sha256=hashlib.sha256(b"y").hexdigest()).n_bytes == 1
    assert not list(tmp_path.glob(".*partial*"))


def test_an_archive_is_unpacked_and_pinned_as_it_came(tmp_path: Path) -> None:
    path = tmp_path / "reviews.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("reviews/pos/1.txt", "good")
        file.writestr("reviews/neg/1.txt", "bad")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert get(str(path), tmp_path, sha256=digest).sha256 == digest
    assert set(tree(tmp_path / "raw")) == {"reviews/pos/1.txt", "reviews/neg/1.txt"}
    assert not list((tmp_path / "downloads").iterdir())


def test_what_cannot_be_fetched(files: Path, tmp_path: Path) -> None:
    for source, words in {
        str(files / "b.csv"): r"there is no .*b\.csv'\. In .*mine: __pycache__, a\.csv, deep",
        str(files / "*.tsv"): "matches no file",
        "package://no_such_package_at_all/x": "no Python package",
    }.items():
        with pytest.raises(SourceError, match=words):
            get(source, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="matches no file"):
        get(str(tmp_path / "empty"), tmp_path)
    with pytest.raises(SourceError, match=r"has 12 bytes, more than data\.max_bytes \(5\)"):
        get(str(files), tmp_path, max_bytes=5)
    get(str(files), tmp_path)
    with pytest.raises(SourceError, match="where the snapshot goes"):
        get(str(tmp_path / "raw/a.csv"), tmp_path)
    assert local_files("https://example.org/a.csv") is None


def test_a_full_disk_leaves_what_was_there(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get(str(files / "a.csv"), tmp_path)
    before = tree(tmp_path / "raw")

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(sources.shutil, "copyfile", full)
    with pytest.raises(StorageError, match="the disk is full"):
        get(str(files), tmp_path)
    assert tree(tmp_path / "raw") == before
