from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from dagobert import archives
from dagobert.archives import is_archive, unpack
from dagobert.errors import SourceError

FILES = {"pos/1.txt": b"good", "neg/1.txt": b"bad", "a.csv": b"text,label\n"}


def make_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    mode = {".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    if path.suffix == ".zst":
        path.write_bytes(pa.compress(path.read_bytes(), "zstd", asbytes=True))
    return path


def unpacked(path: Path, tmp_path: Path, max_bytes: int = 1 << 30) -> dict[str, bytes]:
    target = tmp_path / "target"
    target.mkdir(exist_ok=True)
    unpack(path, path.name, target, max_bytes)
    return {p.relative_to(target).as_posix(): p.read_bytes() for p in sorted(target.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.tar.zst"])
def test_what_was_packed_is_unpacked(tmp_path: Path, name: str) -> None:
    make = make_zip if name.endswith("zip") else make_tar
    path = make(tmp_path / name, {**FILES, "__MACOSX/x": b"", ".DS_Store": b""})
    assert is_archive(name)
    assert unpacked(path, tmp_path) == dict(sorted(FILES.items()))


def test_compressed_data_files_are_no_archives() -> None:
    assert not any(map(is_archive, ["a.csv", "a.csv.gz", "a.jsonl.zst", "a.parquet"]))


@pytest.mark.parametrize("member", ["../out.txt", "/etc/out.txt", "a/../../out.txt", "..\\out.txt", "C:out.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_nothing_leaves_the_directory(tmp_path: Path, member: str, kind: str) -> None:
    make = make_zip if kind == "zip" else make_tar
    path = make(tmp_path / f"a.{kind}", {"ok.txt": b"x", member: b"evil"})
    before = sorted(tmp_path.parent.rglob("out.txt"))
    with pytest.raises(SourceError, match="points outside of it"):
        unpacked(path, tmp_path)
    assert sorted(tmp_path.parent.rglob("out.txt")) == before


def test_links_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(info)
    info2 = zipfile.ZipInfo("link")
    info2.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(info2, "/etc/passwd")
    for name in ("a.tar", "a.zip"):
        with pytest.raises(SourceError, match="link or device"):
            unpacked(tmp_path / name, tmp_path)


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.gz"])
def test_a_bomb_is_not_unpacked(tmp_path: Path, name: str) -> None:
    make = make_zip if name.endswith("zip") else make_tar
    path = make(tmp_path / name, {"zeros.csv": bytes(40 << 20)})
    with pytest.raises(SourceError, match=r"unpacks to more than 10,485,760 bytes .*200 times"):
        unpacked(path, tmp_path)
    assert sum(p.stat().st_size for p in (tmp_path / "target").rglob("*")) <= 12 << 20


def test_size_and_number_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "a.zip", FILES)
    with pytest.raises(SourceError, match="more than 10 bytes"):
        unpacked(path, tmp_path, max_bytes=10)
    monkeypatch.setattr(archives, "_MAX_FILES", 2)
    (tmp_path / "other").mkdir()
    with pytest.raises(SourceError, match="more than 2 files"):
        unpacked(path, tmp_path / "other")


def test_damaged_archives(tmp_path: Path) -> None:
    noise = {"a.txt": os.urandom(100_000)}
    for name in ("a.zip", "a.tar.gz", "a.tar.xz", "a.tar"):
        path = (make_zip if name.endswith("zip") else make_tar)(tmp_path / name, noise)
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], b"no archive", b""):
            path.write_bytes(content)
            with pytest.raises(SourceError, match=r"damaged or no archive|holds no files"):
                unpacked(path, tmp_path)
            for left in (tmp_path / "target").iterdir():
                left.unlink()
    path = make_zip(tmp_path / "flip.zip", noise, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match="damaged"):
        unpacked(path, tmp_path)


def test_names_that_clash(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("a", b"2")
    with pytest.raises(SourceError, match="twice"):
        unpacked(tmp_path / "a.zip", tmp_path)
    path = make_tar(tmp_path / "b.tar", {"b": b"1", "b/c": b"2"})
    with pytest.raises(SourceError, match="stands for a file and a directory"):
        unpacked(path, tmp_path)
