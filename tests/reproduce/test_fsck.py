"""Every single flipped byte is found and named, with what it belongs to."""

from __future__ import annotations

import random
from pathlib import Path

from dagobert import files
from dagobert.fsck import Examination, fsck
from dagobert.repository import Repository
from tests.reproduce import toy

FLIPS = 40


def examined(root: Path, **options: bool) -> Examination:
    return fsck(Repository(root), **options)


def test_a_whole_repository_has_no_damage(toy_root: Path) -> None:
    found = examined(toy_root)
    assert found.damages == ()
    assert found.files > 20


def test_every_flipped_byte_is_found(toy_root: Path) -> None:
    random.seed(0)
    cache = sorted(path for path in (toy_root / ".dvc/cache/files").rglob("*") if path.is_file())
    outputs = [toy_root / name for name in toy.contents(toy_root)]
    checkpoint = toy_root / ".dagobert/checkpoints/0123456789abcdef/step-00000007"
    checkpoint.mkdir(parents=True)
    (checkpoint / "tensors.safetensors").write_bytes(random.randbytes(500))
    (checkpoint / "state.json").write_text('{"step": 7}')
    hashes = {name: files.sha256_file(checkpoint / name) for name in ("tensors.safetensors", "state.json")}
    files.write_json(checkpoint / "manifest.json", {"format": 1, "step": 7, "sha256": hashes})
    assert examined(toy_root).damages == ()
    for _ in range(FLIPS):
        path = random.choice([*cache, *outputs, *checkpoint.iterdir()])
        at, bit = random.randrange(path.stat().st_size), random.randrange(8)
        toy.flip(path, at, bit)
        damages = examined(toy_root).damages
        named = checkpoint if path.parent == checkpoint else path
        assert [damage.path for damage in damages] == [named.relative_to(toy_root).as_posix()], (path, at, bit)
        toy.flip(path, at, bit)


def test_a_damaged_object_is_named_with_its_owners_and_repaired(toy_root: Path) -> None:
    repository = Repository(toy_root)
    toy.git(toy_root, "tag", "v1")
    entry = repository.lock("HEAD").outs["models/finetuned"]
    model = repository.cache.path(repository.cache.listing(entry.md5)["model.safetensors"])
    toy.flip(model)
    (damage,) = examined(toy_root).damages
    assert damage.belongs_to.startswith("models/finetuned/model.safetensors at the working tree, main, v1")
    assert "in the working tree is whole: dagobert fsck --repair" in damage.way_back
    (damage,) = examined(toy_root, repair=True).damages
    assert damage.repaired
    assert examined(toy_root).damages == ()


def test_a_damaged_object_without_a_copy_is_set_aside_and_made_again(toy_root: Path) -> None:
    toy.flip(Repository(toy_root).cache.path(Repository(toy_root).lock("HEAD").outs["data/splits.json"].md5))
    (toy_root / "data/splits.json").unlink()
    (damage,) = examined(toy_root, repair=True).damages
    assert not damage.repaired
    assert "makes it again (split)" in damage.way_back
    toy.repro(toy_root)
    assert examined(toy_root).damages == ()


def test_objects_nobody_recorded_and_run_cache_entries(toy_root: Path) -> None:
    toy.set_param(toy_root, "split", "seed", 5)
    toy.repro(toy_root)
    lock = Repository(toy_root).lock_here()
    assert lock is not None
    entry = lock.outs["data/splits.json"]
    toy.git(toy_root, "checkout", "--", "dvc.lock", "params.yaml", "reports")
    toy.dvc(toy_root, "checkout", "--quiet")
    toy.flip(Repository(toy_root).cache.path(entry.md5))
    (damage,) = examined(toy_root).damages
    assert damage.belongs_to == "nothing that is recorded anywhere"
    run = next(path for path in sorted((toy_root / ".dvc/cache/runs").rglob("*")) if path.is_file())
    run.write_text(run.read_text().replace("code/", "kode/"))
    assert {damage.kind for damage in examined(toy_root).damages} == {"cache", "run cache"}
