"""Each plant is told as what it is: identical, within tolerance, different (where, how, why), or cannot run."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from dagobert.errors import RepositoryError
from dagobert.reproduction import Options, reproduce
from dagobert.verdicts import Report, StageResult, markdown, text
from tests.reproduce import stores, toy


def told(root: Path, revision: str = "HEAD", options: Options | None = None) -> Report:
    """Reproduce, and hold that the working tree, the index and the refs are as they were."""
    before = (
        toy.contents(root),
        toy.git(root, "status", "--porcelain"),
        toy.git(root, "for-each-ref"),
        toy.git(root, "diff"),
    )
    report = reproduce(toy.repository(root), revision, options)
    after = (
        toy.contents(root),
        toy.git(root, "status", "--porcelain"),
        toy.git(root, "for-each-ref"),
        toy.git(root, "diff"),
    )
    assert after == before
    assert not list((root / ".dagobert/clones").glob("*"))
    return report


def stage(report: Report, name: str) -> StageResult:
    return next(stage for stage in report.stages if stage.name == name)


def cache_object(root: Path, out: str, inside: str | None = None) -> Path:
    repository = toy.repository(root)
    lock = repository.lock_here()
    assert lock is not None
    entry = lock.outs[out]
    return repository.cache.path(repository.cache.listing(entry.md5)[inside] if inside else entry.md5)


def gone_source(root: Path) -> None:
    """The source a revision names exists no longer: it lies elsewhere, and the record was made from there."""
    path = root.parent / "elsewhere.csv"
    path.write_text(toy.source_text(salt=3))
    toy.set_param(root, "data", "source", str(path))
    toy.repro(root)
    toy.commit(root, "Another source")
    path.unlink()


def test_identical_twice_and_the_working_tree_is_not_read(toy_root: Path) -> None:
    for paths in (["data/raw/source.csv", "data/tokens/part-00000.json", "models/finetuned/model.safetensors"], []):
        report = told(toy_root)
        assert (report.verdict, report.exit_code) == ("identical", 0)
        assert [s.outcome for s in report.stages] == ["input", *["identical"] * 6]
        assert not report.notes
        assert not report.faults
        for path in paths:
            toy.flip(toy_root / path)


def test_a_changed_byte_in_the_cached_source_is_named_and_got_again(toy_root: Path) -> None:
    path = cache_object(toy_root, "data/raw", "source.csv")
    toy.flip(path, at=20)
    report = told(toy_root)
    assert report.verdict == "identical"
    assert stage(report, "fetch").outcome == "identical"
    assert any("data/raw/source.csv" in note and "damaged in the cache; no DVC remote is set" in note for note in report.notes)


@pytest.mark.parametrize("plant", ["flipped", pytest.param("missing", marks=pytest.mark.slow)])
def test_source_data_that_is_nowhere_whole(toy_root: Path, plant: str) -> None:
    gone_source(toy_root)
    path = cache_object(toy_root, "data/raw", "source.csv")
    toy.flip(path, at=20) if plant == "flipped" else path.unlink()
    report = told(toy_root)
    assert (report.verdict, report.exit_code, report.first) == ("cannot run", 2, "fetch")
    assert any(
        "data/raw/source.csv" in note and f"is {'damaged' if plant == 'flipped' else 'missing'}" in note
        for note in report.notes
    )
    assert report.missing == report.notes
    assert "elsewhere.csv: no such file" in "\n".join(stage(report, "fetch").words)
    assert stage(report, "train").outcome == "not run"


@pytest.mark.slow
def test_a_source_that_changed_its_mind(toy_root: Path) -> None:
    path = toy_root.parent / "elsewhere.csv"
    gone_source(toy_root)
    assert told(toy_root).verdict == "identical"  # its snapshot is whole
    path.write_text(toy.source_text(salt=4))
    report = told(toy_root, options=Options(fetch=True))
    assert (report.verdict, report.exit_code, report.first) == ("different", 1, "fetch")
    assert "source.csv: 61 lines; the first that differs is line 2" in stage(report, "fetch").files[0].how[0]
    assert "the source gives other bytes today" in report.causes[0]


def test_a_cache_object_that_is_computed_anyway(toy_root: Path) -> None:
    toy.flip(cache_object(toy_root, "data/tokens", "part-00000.json"), at=3)
    toy.flip(cache_object(toy_root, "models/finetuned", "model.safetensors"), at=3)
    cache_object(toy_root, "data/splits.json").unlink()
    report = told(toy_root)
    assert report.verdict == "identical"
    first, second = report.notes
    assert "the cache's copy of data/tokens/part-00000.json" in first
    assert "the cache's copy of models/finetuned/model.safetensors" in second


def test_a_changed_line_of_code(toy_root: Path) -> None:
    code = toy_root / "code/tokenize.py"
    code.write_text(code.read_text().replace("len(word)", "len(word) + 1"))
    toy.commit(toy_root, "Change the code, run nothing")
    report = told(toy_root)
    assert (report.verdict, report.exit_code, report.first) == ("different", 1, "tokenize")
    assert report.causes[0].startswith("tokenize: code/tokenize.py at this commit")
    assert stage(report, "clean").outcome == "identical"
    assert stage(report, "split").outcome == "identical"
    assert stage(report, "tokenize").files[0].how[0].startswith("part-00000.json: ")


@pytest.mark.slow
def test_a_changed_comment_is_named_and_changes_nothing(toy_root: Path) -> None:
    with (toy_root / "code/split.py").open("a") as file:
        file.write("# no effect\n")
    toy.commit(toy_root, "A comment")
    report = told(toy_root)
    assert report.verdict == "identical"
    assert [fault.kind for fault in report.faults] == ["code"]


@pytest.mark.parametrize(
    ("section", "name", "value", "first"),
    [("clean", "lower", False, "clean"), ("split", "seed", 43, "split")],
)
def test_a_changed_parameter_or_seed(toy_root: Path, section: str, name: str, value: object, first: str) -> None:
    toy.set_param(toy_root, section, name, value)
    toy.commit(toy_root, "Change a parameter, run nothing")
    report = told(toy_root)
    assert (report.verdict, report.first) == ("different", first)
    assert f"{section}.{name} is {value!r} in params.yaml, and was " in report.causes[0]


def test_another_seed_and_the_how_names_tensors(toy_root: Path) -> None:
    toy.set_param(toy_root, "train", "seed", 7)
    toy.commit(toy_root, "Change a parameter, run nothing")
    report = told(toy_root)
    assert (report.verdict, report.first) == ("different", "train")
    assert "train.seed is 7 in params.yaml, and was 42" in report.causes[0]
    (model, _) = stage(report, "train").files
    assert any("train.seed: 42 → 7" in how for how in model.how)
    assert any("model.safetensors: 2 of 2 tensors differ, first encoder: largest difference" in how for how in model.how)


@pytest.mark.parametrize(("variable", "value", "entry"), [("TOY_THREADS", "2", "threads"), ("TOY_TORCH", "2.14.0", "torch")])
def test_another_machine_is_within_tolerance(
    toy_root: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, entry: str
) -> None:
    monkeypatch.setenv(variable, value)
    report = told(toy_root)
    assert (report.verdict, report.exit_code, report.first) == ("within tolerance", 0, "train")
    assert list(report.fingerprint) == [entry]
    assert str(report.fingerprint[entry][1]) == value
    assert all(metric.within for metric in report.metrics)


def fresh_clone(root: Path) -> Path:
    """What a colleague has after `git clone`: no cache and no outputs but those in git."""
    other = root.parent / "other"
    toy.git(root.parent, "clone", "--quiet", str(root), str(other))
    toy.own_site_cache(other)
    return other


def test_another_machine_without_the_recorded_model(toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_THREADS", "2")
    report = told(fresh_clone(toy_root))
    assert (report.verdict, report.exit_code, report.first) == ("within tolerance", 0, "train")
    assert report.fingerprint == {"threads": (1, 2)}
    assert report.causes == ("the fingerprint differs: threads was 1, is 2",)
    assert not any("the recorded fingerprint cannot be read" in note for note in report.notes)


def test_an_older_record_whose_report_holds_no_fingerprint(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = toy_root / "code/train.py"
    code.write_text(code.read_text().replace('{"threads": threads, "fingerprint": fingerprint})', '{"threads": threads})'))
    toy.repro(toy_root)
    with stores.directory(tmp_path) as store:
        store.add_to(toy_root)
    toy.commit(toy_root, "As it was")
    toy.dvc(toy_root, "push", "--quiet")
    monkeypatch.setenv("TOY_THREADS", "2")
    other = fresh_clone(toy_root)
    report = told(other)
    assert (report.verdict, report.first) == ("different", "train")
    assert "reports/train.json at " in report.notes[-1]
    assert report.notes[-1].endswith("the recorded model is not in the cache. Try --pull.")
    assert stage(report, "train").files[0].how[0].endswith("Try --pull.")
    report = told(other, options=Options(pull=True))
    assert (report.verdict, report.fingerprint) == ("within tolerance", {"threads": (1, 2)})
    how = stage(report, "train").files[0].how
    assert any(words.startswith("model.safetensors: 2 of 2 tensors differ, first encoder: largest difference") for words in how)


def test_another_base_model_of_the_same_name_is_never_within_tolerance(toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_BASE", "9876543210")
    monkeypatch.setenv("TOY_THREADS", "2")
    report = told(toy_root)
    assert (report.verdict, report.first) == ("different", "train")
    assert report.causes[0] == (
        "train: the base model toy-bert is another one (98765432) than the record was trained from (01234567)"
    )
    assert report.causes[1:] == ("the fingerprint differs: threads was 1, is 2",)


def test_packages_that_are_not_those_locked_are_told(toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (toy_root / "requirements.lock").write_text("numpy==0.0.1\nno-such-package==3.0  # gone\n")
    toy.commit(toy_root, "Locked")
    (toy_root / "requirements.lock").write_text("what lies in the working tree is not asked")
    report = told(toy_root)
    numpy = version("numpy")
    assert report.verdict == "identical"
    assert report.environment == {"numpy": ("0.0.1", numpy), "no-such-package": ("3.0", None)}
    assert report.causes == ()
    assert f"environment (locked then → installed):\n  numpy: 0.0.1 → {numpy}\n  no-such-package: 3.0 → not there" in text(
        report
    )
    monkeypatch.setenv("TOY_THREADS", "2")
    report = told(toy_root)
    assert report.verdict == "within tolerance"
    assert report.causes[1] == (
        f"other packages than were locked: numpy 0.0.1 then, {numpy} now, no-such-package 3.0 then, missing now"
    )
    assert report.causes[1] in text(report)
    assert report.causes[1] in markdown(report)


def test_another_machine_with_other_figures_is_different(toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_THREADS", "300000")
    report = told(toy_root)
    assert (report.verdict, report.first) == ("different", "train")
    assert "the fingerprint differs: threads was 1, is 300000" in report.causes[0]


def test_another_parameter_on_another_machine_is_never_within_tolerance(
    toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_THREADS", "2")
    toy.set_param(toy_root, "train", "learning_rate", 0.00010000001)
    toy.commit(toy_root, "Nearly the same")
    report = told(
        toy_root, options=Options(tolerances=dict.fromkeys(["accuracy", "accuracy_low", "accuracy_high", "log_loss"], 9.0))
    )
    assert report.verdict == "different"
    assert "train.learning_rate" in report.causes[0]


def test_a_lock_that_was_written_by_hand(toy_root: Path) -> None:
    lock = toy_root / "dvc.lock"
    digest = toy.repository(toy_root).lock("HEAD").outs["data/splits.json"].md5
    lock.write_text(lock.read_text().replace(digest, "f" * 32, 1))  # one of the three places it stands in
    toy.commit(toy_root, "Nobody will notice")
    report = told(toy_root)
    assert report.verdict == "different"
    assert any(fault.kind == "chain" for fault in report.faults)


def test_a_lock_of_two_runs_on_another_machine_is_never_within_tolerance(
    toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_THREADS", "2")
    lock = toy_root / "dvc.lock"
    digest = toy.repository(toy_root).lock("HEAD").outs["models/finetuned"].md5
    before, _, after = lock.read_text().partition("\n  evaluate:")
    lock.write_text(f"{before}\n  evaluate:{after.replace(digest, 'f' * 32 + '.dir', 1)}")
    toy.commit(toy_root, "Merged badly: evaluate read another model than train made")
    report = told(toy_root)
    assert (report.verdict, report.exit_code, report.first) == ("different", 1, "train")
    assert "the fingerprint differs: threads was 1, is 2" in report.causes[0]
    assert "no tolerance for another machine here: evaluate: read another models/finetuned (ffffffff)" in report.causes[1]


@pytest.mark.slow
def test_figures_that_were_written_by_hand(toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toy_root / "reports/metrics.json"
    path.write_text(path.read_text().replace('"ece": 0.02', '"ece": 0.01'))
    toy.commit(toy_root, "Better")
    report = told(toy_root)
    assert report.verdict == "identical"  # what dvc.lock recorded is what comes out …
    assert [
        fault.text for fault in report.faults if "reports/metrics.json at this commit" in fault.text
    ]  # … and this is not it
    monkeypatch.setenv("TOY_THREADS", "2")
    report = told(toy_root)
    assert report.verdict == "different"  # nothing says what the figures were
    assert any("the recorded figures cannot be compared: reports/metrics.json" in note for note in report.notes)


def test_nothing_recorded(toy_root: Path) -> None:
    (toy_root / "dvc.lock").unlink()
    toy.commit(toy_root, "Without a record")
    report = told(toy_root)
    assert (report.verdict, report.exit_code) == ("cannot run", 2)
    assert "holds no dvc.lock" in report.missing[0]


def test_a_revision_that_does_not_exist(toy_root: Path) -> None:
    with pytest.raises(RepositoryError, match="no commit, tag, branch or experiment has this name"):
        told(toy_root, "nonsense")


@pytest.mark.slow
def test_a_stage_that_fails_today(toy_root: Path) -> None:
    toy.set_param(toy_root, "split", "seed", "x")
    code = toy_root / "code/train.py"
    code.write_text(code.read_text() + "sys.exit('no memory left')\n")
    toy.commit(toy_root, "Broken")
    report = told(toy_root)
    assert (report.verdict, report.first) == ("different", "split")
    assert "no memory left" in "\n".join(stage(report, "train").words)
    assert stage(report, "evaluate").outcome == "not run"


def test_merged_branches(toy_root: Path) -> None:
    toy.git(toy_root, "checkout", "--quiet", "-b", "side")
    toy.set_param(toy_root, "split", "seed", 1)
    toy.repro(toy_root)
    toy.commit(toy_root, "Another split")
    toy.git(toy_root, "checkout", "--quiet", "main")
    toy.set_param(toy_root, "tokenize", "max_length", 4)
    toy.dvc(toy_root, "checkout", "--quiet")
    toy.repro(toy_root)
    toy.commit(toy_root, "Shorter")
    toy.git(toy_root, "merge", "--quiet", "--no-commit", "--strategy-option=ours", "side")
    toy.git(toy_root, "checkout", "main", "--", "dvc.lock", "reports")
    toy.commit(toy_root, "Merge, run nothing")
    report = told(toy_root, "main")
    assert (report.verdict, report.first) == ("different", "split")
    assert "split.seed is 1 in params.yaml, and was 42" in report.causes[0]
    toy.repro(toy_root)
    toy.commit(toy_root, "Run what was merged")
    assert [told(toy_root, revision).verdict for revision in ("main", "side")] == ["identical"] * 2


def test_an_experiment_made_in_a_clone(toy_root: Path) -> None:
    repository = toy.repository(toy_root)
    with repository.clone(toy.git(toy_root, "rev-parse", "HEAD"), share_cache=True) as clone:
        toy.set_param(clone.root, "train", "seed", 9)
        toy.repro(clone.root)
        clone.save_experiment("nine", "Nine\n\nStarted-By: a test")
        toy.git(clone.root, "push", "--quiet", "origin", "refs/exps/*:refs/exps/*")
    report = told(toy_root, "nine")
    assert report.verdict == "identical"
    assert report.commit == next(e.commit for e in repository.experiments() if e.name == "nine")


@pytest.mark.slow
def test_data_that_was_added_by_hand(toy_root: Path) -> None:
    (toy_root / "own").mkdir()
    shutil.copy(toy_root / "data/raw/source.csv", toy_root / "own/source.csv")
    for name in ("dvc.yaml", "code/clean.py"):
        path = toy_root / name
        path.write_text(path.read_text().replace("[data/raw,", "[own/source.csv,").replace("data/raw/", "own/"))
    toy.dvc(toy_root, "add", "--quiet", "own/source.csv")
    toy.repro(toy_root)
    toy.commit(toy_root, "Own data")
    assert told(toy_root).verdict == "identical"
    entry = toy.repository(toy_root).data_files("HEAD")[0]
    toy.repository(toy_root).cache.path(entry.md5).unlink()
    report = told(toy_root)
    assert (report.verdict, report.stages) == ("cannot run", ())
    assert report.missing[0].startswith("own/source.csv (")
    assert "is missing in the cache" in report.missing[0]


def test_code_that_was_never_committed(toy_root: Path) -> None:
    toy.git(toy_root, "rm", "--quiet", "code/split.py")
    toy.commit(toy_root, "Tidy up too much")
    report = told(toy_root)
    assert (report.verdict, report.stages) == ("cannot run", ())
    assert report.missing == (
        "split reads code/split.py, which is not in this commit: it was never committed. "
        "Whoever made the record may still have it",
    )


@pytest.mark.slow
def test_an_experiment_takes_its_untracked_parts_along(toy_root: Path) -> None:
    for name in ("dvc.yaml", "code/split.py"):
        path = toy_root / name
        path.write_text(path.read_text().replace("code/split.py", "code/other.py"))
    (toy_root / "code/split.py").rename(toy_root / "code/other.py")
    (toy_root / "scratch.txt").write_text("nothing to do with it")
    toy.repro(toy_root)
    toy.repository(toy_root).save_experiment("other", "other")
    assert "code/other.py" in toy.repository(toy_root).files(toy.repository(toy_root).resolve("other"))
    assert "scratch.txt" not in toy.repository(toy_root).files(toy.repository(toy_root).resolve("other"))
    assert reproduce(toy.repository(toy_root), "other").verdict == "identical"


def test_only_a_clean_tree_becomes_an_experiment(toy_root: Path) -> None:
    toy.set_param(toy_root, "train", "seed", 5)
    with pytest.raises(RepositoryError, match="not recorded: what lies here is not what the parameters"):
        toy.repository(toy_root).save_experiment("wrong", "wrong")
    assert toy.repository(toy_root).experiments() == []
