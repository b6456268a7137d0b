from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dagobert.repository import Repository
from tasks import clones, dvc, scoring
from tasks.errors import WorkplaceError
from tasks.record import save_experiment
from tasks.values import write_values
from tests.flows.projects import sh, status


@pytest.fixture(autouse=True)
def clones_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGOBERT_CLONES", str(tmp_path / "clones"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))


def test_a_clone_comes_and_goes_and_is_kept_when_the_run_fails(project: Path) -> None:
    (project / "params.yaml").write_text("not what is committed")
    with clones.disposable(project, "", "first") as place:
        assert "learning_rate" in (place.root / "params.yaml").read_text()
        assert place.root.name == "first"
        assert (place.root / ".dagobert" / "checkpoints").resolve() == project / ".dagobert" / "checkpoints"
        assert Path(dvc.query(place.root, "cache", "dir")) == project / ".dvc" / "cache"
        assert dvc.git(place.root, "status", "--porcelain") == ""
    assert not place.root.exists()
    with pytest.raises(RuntimeError), clones.disposable(project, "main", "odd name/ü") as place:
        raise RuntimeError
    assert place.root.is_dir()
    assert place.root.name == "odd-name"
    with pytest.raises(KeyboardInterrupt), clones.disposable(project, "main", "odd name") as place:
        raise KeyboardInterrupt
    assert not place.root.exists()


def test_no_more_than_the_newest_failures_are_kept(project: Path) -> None:
    for number in range(clones.KEEP + 2):
        with pytest.raises(RuntimeError), clones.disposable(project, "", f"run-{number}") as place:
            os.utime(place.root, (0, 0))  # whatever the run did to it
            raise RuntimeError
    kept = [path.name for path in clones.clones_directory(project).iterdir() if path.is_dir()]
    assert sorted(kept) == [f"run-{number}" for number in range(2, clones.KEEP + 2)]
    with pytest.raises(RuntimeError), clones.disposable(project, "", "nothing to look at", keep=False) as place:
        raise RuntimeError
    assert not place.root.exists()
    assert len([path for path in clones.clones_directory(project).iterdir() if path.is_dir()]) == clones.KEEP


def test_old_clones_go_and_living_ones_stay(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"run-{number}").mkdir()
        os.utime(tmp_path / f"run-{number}", (number, number))
    lock = clones._try_lock(clones._lock_path(tmp_path / "run-0"))
    assert lock is not None
    removed = clones.remove_old(tmp_path, keep=3)
    os.close(lock)
    assert sorted(path.name for path in removed) == ["run-1", "run-2"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["run-0", "run-3", "run-4", "run-5"]


@pytest.mark.parametrize("revision", ["nothing", "--upload-pack=x", "HEAD~99"])
def test_a_revision_that_does_not_exist(project: Path, revision: str) -> None:
    with pytest.raises(WorkplaceError, match="no commit, tag, branch or experiment"):
        clones.resolve(project, revision)


def test_production_is_the_promoted_model_for_flows_and_commands(project: Path) -> None:
    sh(project, "git", "tag", "model#production#9")
    sh(project, "git", "commit", "-q", "--allow-empty", "-m", "Promoted last")
    sh(project, "git", "tag", "-a", "model#production#10", "-m", "annotated, and the tenth")
    promoted = sh(project, "git", "rev-parse", "HEAD").strip()
    sh(project, "git", "commit", "-q", "--allow-empty", "-m", "A branch of that name goes on")
    sh(project, "git", "branch", "production")
    assert clones.resolve(project, "production") == Repository(project).resolve("production") == promoted
    assert scoring.in_service(project) == promoted
    assert clones.resolve(project, "refs/heads/production") == sh(project, "git", "rev-parse", "HEAD").strip()
    with pytest.raises(WorkplaceError, match="no commit, tag, branch or experiment has this name"):
        clones.resolve(project, "staging")


def test_an_experiment_is_recorded_and_can_be_got_back(project: Path) -> None:
    started = time.monotonic()
    sh(project, "dvc", "repro", "-q")
    sh(project, "git", "add", "-A")
    sh(project, "git", "commit", "-qm", "Run")
    before = (project / "dvc.lock").read_bytes()
    with clones.disposable(project, "", "brave-otter") as place:
        assert status(place.root) == {}
        write_values(place.root / "params.yaml", {"train": {"learning_rate": 5e-5}})
        with pytest.raises(WorkplaceError, match="not recorded"):
            save_experiment(place, "brave-otter")
        sh(place.root, "dvc", "repro", "-q")
        assert save_experiment(place, "brave-otter") == "brave-otter"
        lock, metrics = (place.root / "dvc.lock").read_bytes(), (place.root / "reports/metrics.json").read_bytes()
    assert (project / "dvc.lock").read_bytes() == before
    assert sh(project, "git", "status", "--porcelain") == ""
    sh(project, "dvc", "exp", "apply", "brave-otter")
    assert (project / "dvc.lock").read_bytes() == lock != before
    assert (project / "reports/metrics.json").read_bytes() == metrics
    assert status(project) == {}
    with clones.disposable(project, "brave-otter", "again") as place:
        assert (place.root / "dvc.lock").read_bytes() == lock
        assert save_experiment(place, "brave-otter") == "brave-otter-2"
    assert time.monotonic() - started < 120
