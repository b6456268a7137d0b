from __future__ import annotations

import json
from pathlib import Path

import pytest

from dagobert.errors import DamagedObjectError
from dagobert.lockfile import Entry
from dagobert.objects import Cache, is_hash, md5_bytes, md5_listing, md5_path


def put(cache: Cache, content: bytes, suffix: str = "") -> str:
    md5 = md5_bytes(content) + suffix
    cache.path(md5).parent.mkdir(parents=True, exist_ok=True)
    cache.path(md5).write_bytes(content)
    return md5


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def directory(cache: Cache, files: dict[str, bytes]) -> Entry:
    listing = [{"md5": put(cache, files[name]), "relpath": name} for name in sorted(files)]
    return Entry("out", put(cache, json.dumps(listing, sort_keys=True).encode(), ".dir"))


def test_what_is_restored_has_the_hash_dvc_gives_it(cache: Cache, tmp_path: Path) -> None:
    entry = directory(cache, {"a": b"1", "sub/b": b"2"})
    cache.restore(entry, tmp_path / "out")
    assert (tmp_path / "out/sub/b").read_bytes() == b"2"
    assert md5_path(tmp_path / "out") == entry.md5 == md5_listing(cache.listing(entry.md5))
    assert cache.faults(entry) == {}


def test_every_fault_is_named(cache: Cache, tmp_path: Path) -> None:
    entry = directory(cache, {"a": b"1", "b": b"2", "c": b"3"})
    cache.path(md5_bytes(b"2")).write_bytes(b"!")
    cache.path(md5_bytes(b"3")).unlink()
    assert cache.faults(entry) == {"out/b": "damaged", "out/c": "missing"}
    with pytest.raises(DamagedObjectError, match=r"damaged: its bytes are not those its name says \(b\)"):
        cache.restore(entry, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    cache.path(entry.md5).write_bytes(b"[]")
    assert cache.faults(entry) == {"out": "damaged"}
    with pytest.raises(DamagedObjectError, match="dagobert fsck"):
        cache.read(entry.md5)


def test_a_missing_object(cache: Cache, tmp_path: Path) -> None:
    for md5 in ("0" * 32, "", "no hash"):
        assert cache.state(md5) == "missing"
    with pytest.raises(DamagedObjectError, match="dvc pull"):
        cache.restore(Entry("x", "0" * 32), tmp_path / "x")
    with pytest.raises(DamagedObjectError, match="dvc pull"):
        cache.read("0" * 32)
    assert list(cache.objects()) == []


def test_only_objects_are_objects(cache: Cache) -> None:
    md5 = put(cache, b"x")
    (cache.path(md5).parent / "tmp.123").write_bytes(b"half")
    assert list(cache.objects()) == [md5]
    assert is_hash(f"{md5}.dir")
    assert not is_hash(md5.upper() + "z")
