"""Promotion: the gate, the history, rollback, and the model in production."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dagobert import promotion
from dagobert.errors import RepositoryError
from dagobert.objects import md5_path
from dagobert.repository import Repository
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
        promotion.rollback(repository, "production")
    for name in ("poor", "good", "loud"):
        promotion.promote(repository, name, "production", because="test")
    assert promotion.rollback(repository, "production").commit == repository.resolve("good")
    assert promotion.rollback(repository, "production").commit == repository.resolve("poor")
    with pytest.raises(RepositoryError, match=r"v0\.0\.1 is the first"):
        promotion.rollback(repository, "production")
    promotion.promote(repository, "loud", "production", because="again")
    assert promotion.rollback(repository, "production").commit == repository.resolve("poor")
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


def test_rollback_restores_model_and_lock_without_moving_head(toy_root: Path) -> None:
    repository = Repository(toy_root)
    before = toy.contents(toy_root)
    toy.git(toy_root, "tag", "old")
    toy.set_param(toy_root, "train", "seed", 7)
    toy.repro(toy_root)
    head = toy.commit(toy_root, "Another seed")
    (toy_root / "params.yaml").write_text((toy_root / "params.yaml").read_text() + "# mine\n")
    with pytest.raises(RepositoryError, match=r"params\.yaml would be lost"):
        promotion.restore(repository, repository.resolve("old"))
    toy.git(toy_root, "restore", ".")
    promotion.restore(repository, repository.resolve("old"))
    assert toy.contents(toy_root) == before
    assert toy.git(toy_root, "rev-parse", "HEAD") == head
    assert repository.status() == {}


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
        promotion.restore(repository, repository.resolve("old"))
    assert toy.contents(toy_root) == before
    assert subprocess.run(["git", "diff", "--quiet"], cwd=toy_root, check=False).returncode == 0
