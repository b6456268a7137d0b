from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from dagobert import files
from dagobert.errors import StorageError


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.txt"
    with files.atomic_file(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(RuntimeError), files.atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_a_directory_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for content in ("old", "new"):
        with files.atomic_directory(path) as temporary:
            (temporary / "sub").mkdir()
            (temporary / "sub" / content).write_text(content)
    assert [p.name for p in (path / "sub").iterdir()] == ["new"]
    with pytest.raises(RuntimeError), files.atomic_directory(path) as temporary:
        (temporary / "half").write_text("x")
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["sub"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EACCES, "permission denied")]
)
def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})

    def full(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=message) as caught:
        files.write_json(path, {"a": 2})
    assert str(path) in str(caught.value)
    assert files.read_json(path) == {"a": 1}


def test_json_is_stable_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"b": 1, "a": "é"})
    assert path.read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "é"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, float("nan"))


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert files.sha256_tree(tmp_path / "a") == files.sha256_file(tmp_path / "a")
    before = files.sha256_tree(tmp_path)
    (tmp_path / "b").write_bytes(b"")
    with_b = files.sha256_tree(tmp_path)
    (tmp_path / "b").rename(tmp_path / "c")
    assert len({before, with_b, files.sha256_tree(tmp_path)}) == 3
