"""Finding: the table of experiments, and where a file came from."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from dagobert.errors import RepositoryError
from dagobert.experiments import record, rows, table
from dagobert.export import export
from dagobert.lineage import inspect, text
from dagobert.references import references
from dagobert.repository import Repository
from tests.reproduce import toy


@pytest.fixture(scope="module")
def history(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tag, an experiment with another seed, and then a tree that was run and not committed. Only read."""
    root = toy.copy(template, tmp_path_factory.mktemp("history") / "repository")
    toy.git(root, "tag", "-a", "v1", "-m", "first")
    toy.set_param(root, "train", "seed", 7)
    toy.repro(root)
    events = root / ".dagobert/events"
    events.mkdir(parents=True)
    for stage, seconds in (("clean", 1000.0), ("train", 61.0), ("evaluate", 2.5)):  # `clean` ran for something else
        lines = [{"kind": "start"}, {"kind": "end", "status": "ok", "seconds": seconds}]
        (events / f"{stage}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record(Repository(root), "seven", started_by="Ada")
    toy.set_param(root, "train", "seed", 8)
    toy.repro(root)
    return root


def test_the_table(history: Path) -> None:
    found = {row.name: row for row in rows(Repository(history))}
    assert set(found) == {"main", "v1", "seven"}
    seven = found["seven"]
    assert seven.changes == {"train.seed": (42, 7)}
    assert (seven.who, seven.seconds, seven.kind) == ("Ada", 63.5, "experiment")
    assert found["main"].changes == {}
    assert found["main"].seconds is None
    shown = table(list(found.values()))
    assert "train.seed=7" in shown
    assert "1 min 04 s" in shown
    assert "%" in shown


def test_a_branch_shows_what_changed_since_the_record_before(toy_root: Path) -> None:
    for name, seed in (("v1", 8), ("v2", 9)):
        toy.set_param(toy_root, "train", "seed", seed)
        toy.repro(toy_root)
        toy.commit(toy_root, name)
        toy.git(toy_root, "tag", name)
    toy.commit(toy_root, "Words only, nothing was run")
    found = {row.name: row for row in rows(Repository(toy_root))}
    assert found["v1"].changes == {"train.seed": (42, 8)}
    assert found["v2"].changes == found["main"].changes == {"train.seed": (8, 9)}


def test_no_experiment_yet() -> None:
    assert "dagobert record NAME" in table([])


def test_a_name_git_would_not_take(toy_root: Path) -> None:
    with pytest.raises(RepositoryError, match="an experiment's name is letters"):
        record(Repository(toy_root), "two words")


def test_a_copied_model_tells_where_it_came_from(history: Path, tmp_path: Path) -> None:
    repository = Repository(history)
    entry = repository.lock(repository.resolve("seven")).outs["models/finetuned"]
    repository.cache.restore(entry, tmp_path / "copy")
    found = inspect(repository, tmp_path / "copy")
    assert found.what == "exactly models/finetuned as it was recorded"
    (origin,) = found.origins
    assert (origin.place, origin.stage, origin.dirty) == ("seven", "train", ())
    assert origin.params["train.seed"] == 7
    assert origin.upstream["data.source"].endswith("source.csv")
    assert origin.upstream["split.seed"] == 42
    assert not {name for name in origin.upstream if name.startswith("evaluate")}
    assert origin.lock_md5 == hashlib.md5(repository.read(repository.resolve("seven"), "dvc.lock") or b"").hexdigest()
    assert found.facts["fingerprint"] == {"threads": 1, "torch": "2.13.0"}
    (tmp_path / "copy/README.md").write_text("an addition\n")
    found = inspect(repository, tmp_path / "copy")
    assert found.what.startswith("not recorded as a whole; model.safetensors in it is models/finetuned/model.safetensors")


def test_a_dirty_tree_is_named(history: Path) -> None:
    found = inspect(Repository(history), history / "models/finetuned")
    (origin,) = found.origins
    assert origin.place == "the working tree"
    assert any(name.startswith("params.yaml ") for name in origin.dirty)
    assert "DIRTY" in text(found)


def test_a_commit_whose_record_was_made_by_other_code_is_dirty(toy_root: Path) -> None:
    code = toy_root / "code/split.py"
    kept = code.read_text()
    code.write_text(kept.replace("0.4", "0.5"))
    toy.repro(toy_root)
    code.write_text(kept)
    toy.commit(toy_root, "Outputs of code that is not here")
    found = inspect(Repository(toy_root), toy_root / "data/splits.json")
    assert any("code/split.py at this commit" in fault for origin in found.origins for fault in origin.dirty)


def test_a_file_nobody_recorded(toy_root: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("never seen")
    assert inspect(Repository(toy_root), tmp_path / "x").what.startswith("not recorded anywhere")
    with pytest.raises(RepositoryError, match="no such file or directory"):
        inspect(Repository(toy_root), tmp_path / "y")


def test_everything_recorded_is_referenced(history: Path) -> None:
    repository = Repository(history)
    known = references(repository)
    for revision in ("main", "v1", "seven"):
        for entry in repository.lock(repository.resolve(revision)).outs.values():
            assert revision in known[entry.md5].places
    model = known[repository.lock(repository.resolve("seven")).outs["models/finetuned"].md5]
    assert model.stages == ["train"]


def test_a_revision_by_any_name(history: Path) -> None:
    repository = Repository(history)
    head = repository.head()
    assert head is not None
    assert repository.resolve("main") == repository.resolve("v1") == repository.resolve(head[:8]) == head
    with pytest.raises(RepositoryError, match="Experiments: seven"):
        repository.resolve("eight")


def test_a_shallow_clone_can_be_cloned(history: Path, tmp_path: Path) -> None:
    toy.run(tmp_path, "git", "clone", "--quiet", "--depth=1", history.as_uri(), "shallow")
    repository = Repository(tmp_path / "shallow")
    shutil.copytree(history / ".dvc/cache", repository.root / ".dvc/cache")
    with repository.clone(repository.resolve("HEAD"), share_cache=True) as clone:
        assert (clone.root / "dvc.lock").is_file()
    assert not clone.root.exists()


def test_a_model_that_leaves_carries_its_lineage(history: Path, tmp_path: Path) -> None:
    repository = Repository(history)
    commit = repository.resolve("seven")
    exported = export(repository, "seven", tmp_path / "given/away")
    assert sorted(file.name for file in exported.iterdir()) == [
        "README.md",
        "config.json",
        "dagobert.json",
        "model.safetensors",
    ]
    facts = json.loads((exported / "dagobert.json").read_text())
    assert facts["record"]["commit"] == commit
    assert facts["record"]["dirty"] == []
    assert facts["record"]["dvc_lock_md5"] == hashlib.md5(repository.read(commit, "dvc.lock") or b"").hexdigest()
    assert facts["record"]["params"]["train"]["seed"] == 7
    assert facts["metrics"] == json.loads(repository.read(commit, "reports/metrics.json") or b"")
    assert facts["fingerprint"] == {"threads": 1, "torch": "2.13.0"}
    assert f"dagobert reproduce {commit}" in (exported / "README.md").read_text()
    assert inspect(repository, exported).origins[0].place == "seven"  # its weights still lead back
    with pytest.raises(RepositoryError, match="given/away is there already"):
        export(repository, "seven", tmp_path / "given/away")


def test_an_exported_model_says_that_its_record_is_dirty(toy_root: Path, tmp_path: Path) -> None:
    code = toy_root / "code/split.py"
    kept = code.read_text()
    code.write_text(kept.replace("0.4", "0.5"))
    toy.repro(toy_root)
    code.write_text(kept)
    toy.commit(toy_root, "Outputs of code that is not here")
    exported = export(Repository(toy_root), "HEAD", tmp_path / "away")
    assert any("code/split.py" in fault for fault in json.loads((exported / "dagobert.json").read_text())["record"]["dirty"])
