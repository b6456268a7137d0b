"""A copy of this repository in a temporary directory, with a tiny BERT and few rows, and programs run in it as a user would."""

from __future__ import annotations

import csv
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

Run = Callable[..., str]

GOOD = ["good", "great", "love", "fun", "happy", "wonderful", "best"]
BAD = ["bad", "awful", "hate", "boring", "sad", "terrible", "worst"]


def write_reviews(path: Path, n: int, seed: int = 0) -> None:
    """`n` short reviews a tiny model can learn, with markup and sorted by label, as the packaged ones are."""
    rng = random.Random(seed)
    filler = "this film was a movie of plot and acting it is not very one two three".split()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "source"])
        for label, words in enumerate((BAD, GOOD)):
            for _ in range(n // 2):
                text = [rng.choice(words) for _ in range(3)] + [rng.choice(filler) for _ in range(rng.randrange(5, 40))]
                rng.shuffle(text)
                text.insert(rng.randrange(len(text)), "<br /><br />")
                writer.writerow([" ".join(text), label, "imdb"])


def set_params(path: Path, changes: dict[str, Any]) -> None:
    """Change values in a params.yaml, comments kept: `{"train.seed": 1}`."""
    yaml = YAML()
    values = yaml.load(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        section, _, key = name.partition(".")
        assert key in values[section], name
        values[section][key] = value
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(values, file)


def small_params(tiny_bert: Path, source: Path) -> dict[str, Any]:
    """What makes the default pipeline run in seconds."""
    return {
        "data.source": str(source),
        "data.sha256": None,
        "model.name_or_path": str(tiny_bert),
        "tokenize.max_length": 64,
        "split.train_size": 120,
        "split.validation_size": 30,
        "split.test_size": 50,
        "train.learning_rate": 0.005,
        "train.num_train_epochs": 5,
        "train.train_batch_size": 8,
        "train.precision": "fp32",
        "train.threads": 1,
    }


def environment() -> dict[str, str]:
    """The environment of a user who activated nothing, in whose PATH only the system's programs are."""
    kept = {name: value for name, value in os.environ.items() if name in {"HOME", "LANG", "TMPDIR", "USER"}}
    identity = {
        f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in (("NAME", "t"), ("EMAIL", "t@t"))
    }
    return kept | identity | {"PATH": "/usr/local/bin:/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1"}


def copy_of(repository: Path, target: Path) -> Path:
    """The files git knows or would take, as they are now, committed in a new repository; `.venv` is the present environment."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (repository / name).is_file() and not name.startswith("dvc.lock"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, target / name)
    (target / ".venv").symlink_to(sys.prefix)
    return target


def runner(directory: Path) -> Run:
    """Run a program of the environment in `directory`; give its standard output, show everything when it fails."""

    def run(*command: str | Path, code: int = 0, **extra: str) -> str:
        program = directory / ".venv" / "bin" / str(command[0])
        words = [str(program) if program.exists() else str(command[0]), *map(str, command[1:])]
        done = subprocess.run(
            words,
            cwd=directory,
            env=environment() | extra,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, f"{words} gave {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
        return done.stdout if code == 0 else done.stdout + done.stderr

    return run


def commit(run: Run, message: str) -> None:
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "--message", message)


@pytest.fixture(scope="session")
def make_workspace(repository: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes copies of the repository that run in seconds; keyword arguments `section__name=value` change parameters."""

    def make(name: str, rows: int = 240, **changes: Any) -> Path:
        target = copy_of(repository, tmp_path_factory.mktemp(name))
        source = target.parent / f"{target.name}-reviews.csv"
        write_reviews(source, rows)
        chosen = small_params(tiny_bert, source) | {key.replace("__", "."): value for key, value in changes.items()}
        set_params(target / "params.yaml", chosen)
        run = runner(target)
        run("git", "init", "--quiet", "--initial-branch", "main")
        commit(run, "start")
        return target

    return make


@pytest.fixture(scope="session")
def workspace(make_workspace: Callable[..., Path]) -> Path:
    """One copy whose pipeline has run once and been committed. Tests that share it leave it clean and as they found it."""
    target = make_workspace("workspace")
    run = runner(target)
    run("dvc", "repro")
    commit(run, "first run")
    return target


@pytest.fixture
def run(workspace: Path) -> Run:
    return runner(workspace)
