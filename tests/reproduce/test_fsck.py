"""Every single flipped byte is found and named, with what it belongs to."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from dagobert import files
from dagobert.fsck import Examination, _Sizes, fsck, run_cache_entry_is_whole
from dagobert.repository import Repository
from tests.reproduce import toy
from tests.unit import test_shards

FLIPS = 10  # in each kind of file


def examined(root: Path, **options: bool) -> Examination:
    return fsck(Repository(root), **options)


def test_a_whole_repository_has_no_damage(toy_root: Path) -> None:
    found = examined(toy_root)
    assert found.damages == ()
    assert found.files > 20


@pytest.fixture
def rich_root(toy_root: Path, tiny_bert: Path) -> Path:
    """The toy with real shards and a real model added by hand, and a checkpoint."""
    test_shards.write(toy_root / "own/tokens", [test_shards.sequences([3, 5, 2]), test_shards.sequences([6, 4], first_row=3)])
    shutil.copytree(tiny_bert, toy_root / "own/model")
    (toy_root / "own/words.txt").write_text("good\nbad\n")
    toy.dvc(toy_root, "add", "--quiet", "own/tokens", "own/model", "own/words.txt")
    toy.commit(toy_root, "Data of our own")
    checkpoint = toy_root / ".dagobert/checkpoints/0123456789abcdef/step-00000007"
    checkpoint.mkdir(parents=True)
    (checkpoint / "tensors.safetensors").write_bytes(random.randbytes(500))
    (checkpoint / "state.json").write_text('{"step": 7}')
    hashes = {name: files.sha256_file(checkpoint / name) for name in ("tensors.safetensors", "state.json")}
    files.write_json(checkpoint / "manifest.json", {"format": 1, "step": 7, "sha256": hashes})
    return toy_root


def kinds_of_files(root: Path) -> dict[str, list[Path]]:
    """Every file whose bytes are recorded, by where it lies."""
    own = [path for path in (root / "own").rglob("*") if path.suffix not in (".dvc", "") and path.name != ".gitignore"]
    return {
        "cache": files_in(root / ".dvc/cache/files"),
        "run cache": files_in(root / ".dvc/cache/runs"),
        "outputs": [root / name for name in toy.contents(root)],
        "data added by hand": sorted(path for path in own if path.is_file()),
        "checkpoint": files_in(root / ".dagobert/checkpoints"),
    }


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_every_flipped_byte_is_found(rich_root: Path) -> None:
    random.seed(0)
    assert examined(rich_root).damages == ()
    for kind, paths in kinds_of_files(rich_root).items():
        assert len(paths) >= 3, kind
        for _ in range(FLIPS):
            path = random.choice(paths)
            at, bit = random.randrange(path.stat().st_size), random.randrange(8)
            toy.flip(path, at, bit)
            damages = examined(rich_root).damages
            named = path.parent if kind == "checkpoint" else path
            assert [damage.path for damage in damages] == [named.relative_to(rich_root).as_posix()], (path, at, bit)
            toy.flip(path, at, bit)


def test_no_byte_of_a_run_cache_entry_may_change(toy_root: Path) -> None:
    repository = Repository(toy_root)
    sizes = _Sizes(repository, {md5: repository.cache.path(md5).stat().st_size for md5 in repository.cache.objects()})
    path = max(files_in(toy_root / ".dvc/cache/runs"), key=lambda path: path.read_text().count(".dir"))
    assert run_cache_entry_is_whole(path, sizes)
    for at in range(0, path.stat().st_size, 3):
        toy.flip(path, at, at % 7)
        assert not run_cache_entry_is_whole(path, sizes), at
        toy.flip(path, at, at % 7)


def test_edited_data_and_its_way_back(rich_root: Path) -> None:
    (rich_root / "own/words.txt").write_text("good\nworse\n")
    (damage,) = examined(rich_root).damages
    assert (damage.path, damage.kind) == ("own/words.txt", "output")
    assert damage.way_back == "dvc checkout --force own/words.txt; or dvc add own/words.txt if the change is meant"
    toy.dvc(rich_root, "checkout", "--force", "own/words.txt")
    assert examined(rich_root).damages == ()


def test_a_report_comes_back_from_git_or_from_its_stage(toy_root: Path) -> None:
    (toy_root / "reports/metrics.json").write_text("{}")
    (damage,) = examined(toy_root).damages
    assert damage.way_back == "git restore reports/metrics.json"
    toy.git(toy_root, "restore", "reports/metrics.json")
    assert examined(toy_root).damages == ()
    toy.git(toy_root, "rm", "--quiet", "--cached", "reports/metrics.json")
    (toy_root / "reports/metrics.json").write_text("{}")
    (damage,) = examined(toy_root).damages
    assert damage.way_back == "dvc repro --force --single-item evaluate"
    toy.run(toy_root, *damage.way_back.split())
    assert examined(toy_root).damages == ()
    (toy_root / "reports/metrics.json").unlink()
    (damage,) = examined(toy_root).damages
    assert (damage.kind, damage.way_back) == ("missing", "dvc repro evaluate")


def test_without_its_listing_a_directory_is_named_and_not_its_files(toy_root: Path) -> None:
    repository = Repository(toy_root)
    listing = repository.cache.path(repository.lock("HEAD").outs["models/finetuned"].md5)
    listing.unlink()
    assert examined(toy_root).damages == ()  # all of it lies in the working tree
    toy.flip(toy_root / "models/finetuned/model.safetensors")
    (damage,) = examined(toy_root).damages
    assert damage.path == "models/finetuned"
    assert "its listing is missing in the cache, so which of its 3 files cannot be told" in damage.belongs_to
    assert damage.way_back == "dvc repro --force --single-item train"


def test_what_is_nowhere_is_named_with_how_to_get_it(rich_root: Path) -> None:
    repository = Repository(rich_root)
    outs = repository.lock("HEAD").outs
    for md5 in (outs["data/splits.json"].md5, repository.cache.listing(outs["models/finetuned"].md5)["config.json"]):
        repository.cache.path(md5).unlink()
    assert examined(rich_root).damages == ()  # the working tree still has them
    (rich_root / "data/splits.json").unlink()
    (rich_root / "models/finetuned/config.json").unlink()
    (rich_root / "data/clean.json").unlink()  # the cache still has it
    shutil.rmtree(rich_root / "own/tokens")
    (words,) = (entry for entry in repository.data_files_here() if entry.path == "own/tokens")
    repository.cache.path(words.md5).unlink()
    found = {damage.path: damage for damage in examined(rich_root).damages}
    assert {damage.kind for damage in found.values()} == {"missing"}
    assert set(found) == {"data/splits.json", "models/finetuned", "own/tokens"}
    assert found["data/splits.json"].way_back == "dvc repro split"
    assert "1 of its 3 files (config.json …), which train made, is neither in the cache" in found["models/finetuned"].belongs_to
    assert found["own/tokens"].way_back.startswith("ask who recorded it")
    toy.dvc(rich_root, "remote", "add", "--quiet", "--default", "store", str(rich_root.parent))
    ways = [damage.way_back for damage in examined(rich_root).damages]
    assert "dvc pull own/tokens (remote store)" in ways
    assert "dvc pull data/splits.json (remote store); or dvc repro split" in ways


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
