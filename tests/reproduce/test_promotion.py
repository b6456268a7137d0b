"""Promotion: the gate, the history, rollback, and the model in production."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dagobert import promotion, restoring
from dagobert.errors import RepositoryError
from dagobert.objects import md5_path
from dagobert.repository import Repository, environment
from tests.reproduce import handmade, toy

TEXTS = [f"text number {i}" for i in range(100)]
LABELS = ["neg" if i % 2 else "pos" for i in range(100)]
SIDES = ["test" if i < 60 else "train" for i in range(100)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = handmade.make(tmp_path_factory.mktemp("promotion") / "repository")
    plans = {
        "poor": ([i >= 30 for i in range(60)], 0.02),
        "good": ([i >= 5 for i in range(60)], 0.02),
        "same": ([i >= 5 for i in range(59)] + [True], 0.02),
        "loud": ([True] * 60, 0.20),
    }
    for seed, (name, (right, ece)) in enumerate(plans.items()):
        handmade.record(made, handmade.result(TEXTS, LABELS, SIDES, right, ece=ece), {"seed": seed}, name)
        toy.git(made.root, "tag", name)
    return made.root


@pytest.fixture
def repository(recorded: Path, tmp_path: Path) -> Repository:
    return Repository(Path(shutil.copytree(recorded, tmp_path / "repository")))


def test_the_first_then_a_better_one(repository: Repository) -> None:
    first, _ = promotion.promote(repository, "poor", "production")
    assert (first.version, first.number, first.commit) == ("v0.0.1", 1, repository.resolve("poor"))
    second, checks = promotion.promote(repository, "good", "production")
    assert (second.version, second.number) == ("v0.0.2", 2)
    assert {check.name for check in checks if check.passed} == {"record", "model", "data", "better", "calibration"}
    tags = toy.git(repository.root, "tag", "--list", "model*").splitlines()
    assert tags == ["model#production#1", "model#production#2", "model@v0.0.1", "model@v0.0.2"]
    shown = promotion.text(promotion.history(repository))
    assert "Promote good to production" in shown
    with pytest.raises(RepositoryError, match="is in production already"):
        promotion.promote(repository, "good", "production")


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [("same", r"better: accuracy \+0.00 points"), ("loud", "calibration: calibration error 0.02 → 0.2")],
)
def test_the_gate_refuses_and_says_why(repository: Repository, candidate: str, reason: str) -> None:
    promotion.promote(repository, "good", "production")
    with pytest.raises(RepositoryError, match=reason):
        promotion.promote(repository, candidate, "production")
    made, _ = promotion.promote(repository, candidate, "production", because="the customer asked")
    assert made.note == f"Promote {candidate} to production: the customer asked"


def test_the_gate_looks_at_the_calibration_of_other_test_rows_too(repository: Repository) -> None:
    promotion.promote(repository, "good", "production")
    new = [f"new {text}" for text in TEXTS]
    handmade.record(repository, handmade.result(new, LABELS, SIDES, [True] * 60, ece=0.2), {"seed": 9}, "new data")
    checks = promotion.gate(repository, repository.resolve("HEAD"), repository.resolve("good"))
    refused = {check.name: check.text for check in checks if not check.passed}
    assert list(refused) == ["better", "calibration"]
    assert "judged on different rows" in refused["better"]


def test_the_gate_knows_damage_dirt_and_lost_rows(repository: Repository) -> None:
    md5 = repository.lock("good").outs["models/finetuned"].md5
    path = repository.cache.path(repository.cache.listing(md5)["model.safetensors"])
    toy.flip(path)
    with pytest.raises(RepositoryError, match=r"model: models/finetuned/model\.safetensors is damaged"):
        promotion.promote(repository, "good", "production")
    toy.flip(path)
    (repository.root / "params.yaml").write_text('{"train": {"seed": 99}}')
    (repository.root / "reports/data.json").write_text(
        '{"rows_read": 5, "rows_not_selected": 0, "rows_out": 3, "rows_quarantined": 1}'
    )
    toy.commit(repository.root, "Edited by hand")
    with pytest.raises(
        RepositoryError, match=r"record: train: train\.seed is 99(.|\n)*data: 5 rows were read, and 4 are accounted for"
    ):
        promotion.promote(repository, "HEAD", "production")


def test_rollback_goes_back_and_back_again(repository: Repository) -> None:
    with pytest.raises(RepositoryError, match="nothing to roll back to"):
        promotion.rollback(repository, "production", tag_only=True)
    for name in ("poor", "good", "loud"):
        promotion.promote(repository, name, "production", because="test")
    assert promotion.rollback(repository, "production", tag_only=True).commit == repository.resolve("good")
    assert promotion.rollback(repository, "production", tag_only=True).commit == repository.resolve("poor")
    with pytest.raises(RepositoryError, match=r"v0\.0\.1 is the first"):
        promotion.rollback(repository, "production", tag_only=True)
    promotion.promote(repository, "loud", "production", because="again")
    assert promotion.rollback(repository, "production", tag_only=True).commit == repository.resolve("poor")
    assert [a.number for a in promotion.history(repository, "production")] == [1, 2, 3, 4, 5, 6, 7]


def test_the_model_in_production_is_checked_bytes(repository: Repository) -> None:
    promotion.promote(repository, "poor", "production")
    path = promotion.model_directory(repository, "production")
    assert md5_path(path) == repository.lock(repository.resolve("poor")).outs["models/finetuned"].md5
    toy.flip(path / "model.safetensors")
    assert promotion.model_directory(repository, "production") == path
    assert md5_path(path) == repository.lock(repository.resolve("poor")).outs["models/finetuned"].md5
    with pytest.raises(RepositoryError, match="no commit, tag, branch or experiment"):
        promotion.model_directory(repository, "staging")


def test_gto_reads_the_tags(repository: Repository) -> None:
    promotion.promote(repository, "poor", "production")
    promotion.promote(repository, "good", "production")
    shown = toy.run(repository.root, "gto", "show", "model", "--json")
    assert "v0.0.2" in shown
    assert "production" in shown


def test_rollback_by_command_restores_model_and_lock_without_moving_head(toy_root: Path) -> None:
    repository = Repository(toy_root)
    before = toy.contents(toy_root)
    toy.git(toy_root, "tag", "old")
    toy.set_param(toy_root, "train", "seed", 7)
    toy.repro(toy_root)
    head = toy.commit(toy_root, "Another seed")
    for revision in ("old", "main"):  # the toy has no rows that the gate could compare
        promotion._assign(repository, repository.resolve(revision), "production", "test", {})
    status, output = command(toy_root, "rollback", "--because", "it is slow")
    assert (status, "production is v0.0.1" in output) == (0, True), output
    assert toy.contents(toy_root) == before
    assert toy.git(toy_root, "rev-parse", "HEAD") == head
    assert (toy_root / "dvc.lock").read_bytes() == repository.read("old", "dvc.lock")
    assert repository.status() == {}


def command(root: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "dagobert", *arguments], cwd=root, env=environment(), capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_one_restore_after_another_and_none_over_edited_files(toy_root: Path) -> None:
    repository = Repository(toy_root)
    before = toy.contents(toy_root)
    toy.git(toy_root, "tag", "old")
    toy.set_param(toy_root, "train", "seed", 7)
    toy.repro(toy_root)
    toy.commit(toy_root, "Another seed")
    after = toy.contents(toy_root)
    restoring.restore(repository, repository.resolve("old"))
    restoring.restore(repository, repository.resolve("main"))
    assert toy.contents(toy_root) == after
    (toy_root / "params.yaml").write_text((toy_root / "params.yaml").read_text() + "# mine\n")
    with pytest.raises(RepositoryError, match=r"params\.yaml would be lost"):
        restoring.restore(repository, repository.resolve("old"))
    toy.git(toy_root, "restore", ".")
    restoring.restore(repository, repository.resolve("old"))
    assert toy.contents(toy_root) == before


def test_no_bytes_that_are_recorded_nowhere_are_overwritten(toy_root: Path) -> None:
    repository = Repository(toy_root)
    for name, text in (("words.txt", "one"), ("lists/a.txt", "a"), ("notes.md", "as it was")):
        (toy_root / name).parent.mkdir(exist_ok=True)
        (toy_root / name).write_text(text)
    toy.dvc(toy_root, "add", "--quiet", "words.txt", "lists")
    toy.commit(toy_root, "Words")
    toy.git(toy_root, "tag", "old")
    toy.git(toy_root, "rm", "--quiet", "notes.md")
    (toy_root / "words.txt").write_text("two")
    toy.dvc(toy_root, "add", "--quiet", "words.txt")
    toy.commit(toy_root, "Other words")
    mine = {"words.txt": "edited", "lists/a.txt": "edited as well", "lists/new.txt": "added", "notes.md": "untracked"}
    theirs = {"words.txt": "two", "lists/a.txt": "a", "lists/new.txt": None, "notes.md": None}
    for name, text in mine.items():
        (toy_root / name).write_text(text)
        with pytest.raises(RepositoryError, match=f"not restored: {re.escape(name)} would be overwritten"):
            restoring.restore(repository, repository.resolve("old"))
        assert (toy_root / name).read_text() == text
        assert repository.modified() == []
        if (recorded := theirs[name]) is None:
            (toy_root / name).unlink()
        else:
            (toy_root / name).write_text(recorded)
    (toy_root / "notes.md").write_text("as it was")  # the same bytes: nothing is lost
    (toy_root / "kept.txt").write_text("in nobody's way")
    restoring.restore(repository, repository.resolve("old"))
    assert (toy_root / "words.txt").read_text() == "one"
    assert (toy_root / "kept.txt").read_text() == "in nobody's way"


def test_a_file_where_a_directory_will_be_is_not_overwritten(toy_root: Path) -> None:
    repository = Repository(toy_root)
    (toy_root / "folder").mkdir()
    (toy_root / "folder/tracked.txt").write_text("tracked")
    commit = toy.commit(toy_root, "A folder")
    toy.git(toy_root, "rm", "--quiet", "folder/tracked.txt")
    toy.commit(toy_root, "None")
    (toy_root / "folder").write_text("mine")
    with pytest.raises(RepositoryError, match="not restored: folder would be overwritten"):
        restoring.restore(repository, commit)
    assert (toy_root / "folder").read_text() == "mine"


def promoted_twice(root: Path) -> tuple[Repository, Path]:
    """A repository with two promotions; the file in the cache of the first one's model."""
    repository = Repository(root)
    toy.git(root, "tag", "old")
    md5 = repository.lock("old").outs["models/finetuned"].md5
    toy.set_param(root, "train", "seed", 7)
    toy.repro(root)
    toy.commit(root, "Another seed")
    for revision in ("old", "main"):  # the toy has no rows that the gate could compare
        promotion._assign(repository, repository.resolve(revision), "production", "test", {})
    return repository, repository.cache.path(repository.cache.listing(md5)["model.safetensors"])


@pytest.mark.parametrize("tag_only", [True, False])
def test_nothing_is_tagged_when_the_model_cannot_be_had(toy_root: Path, tag_only: bool) -> None:
    repository, model = promoted_twice(toy_root)
    model.unlink()
    before, tags = toy.contents(toy_root), toy.git(toy_root, "tag")
    reason = r"production is still v0\.0\.2.*models/finetuned/model\.safetensors \(missing\) in the cache; no DVC remote is set"
    with pytest.raises(RepositoryError, match=reason):
        promotion.rollback(repository, "production", tag_only=tag_only)
    assert (toy.contents(toy_root), toy.git(toy_root, "tag")) == (before, tags)


def test_nothing_is_tagged_when_files_would_be_lost(toy_root: Path) -> None:
    repository, _ = promoted_twice(toy_root)
    (toy_root / "params.yaml").write_text((toy_root / "params.yaml").read_text() + "# mine\n")
    tags = toy.git(toy_root, "tag")
    status, output = command(toy_root, "rollback")
    assert (status, toy.git(toy_root, "tag")) == (2, tags)
    assert "params.yaml would be lost" in output
    assert "--tag-only" in output
    assert promotion.rollback(repository, "production", tag_only=True).version == "v0.0.1"
    assert (toy_root / "params.yaml").read_text().endswith("# mine\n")


def test_a_model_that_only_the_remote_has_is_fetched(toy_root: Path, tmp_path: Path) -> None:
    toy.dvc(toy_root, "remote", "add", "--quiet", "--default", "store", str(tmp_path / "store"))
    toy.dvc(toy_root, "push", "--quiet")
    toy.commit(toy_root, "A remote")
    repository, model = promoted_twice(toy_root)
    toy.flip(model)
    assert promotion.rollback(repository, "production").version == "v0.0.1"
    assert toy.contents(toy_root)["models/finetuned/model.safetensors"] == model.read_bytes()
    assert repository.cache.faults(repository.lock("old").outs["models/finetuned"]) == {}


def test_nothing_is_touched_when_bytes_are_missing(toy_root: Path) -> None:
    repository = Repository(toy_root)
    toy.git(toy_root, "tag", "old")
    model = repository.lock("HEAD").outs["data/splits.json"].md5
    toy.set_param(toy_root, "split", "seed", 7)
    toy.repro(toy_root)
    toy.commit(toy_root, "Another seed")
    before = toy.contents(toy_root)
    repository.cache.path(model).unlink()
    with pytest.raises(RepositoryError, match=r"data/splits\.json \(missing\)"):
        restoring.restore(repository, repository.resolve("old"))
    assert toy.contents(toy_root) == before
    assert subprocess.run(["git", "diff", "--quiet"], cwd=toy_root, check=False).returncode == 0
