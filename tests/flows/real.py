"""A project with the real stages, few rows and a tiny BERT: for what a fake stage cannot show."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import make_tiny_bert
from tests.e2e.conftest import commit, copy_of, runner, set_params, small_params, write_reviews
from tests.flows.processes import wait_until_none
from tests.flows.projects import REPOSITORY, environment

TRAINING = {"train.num_train_epochs": 8, "train.save_steps": 5}  # long enough to be killed, with many checkpoints
MODEL = "models/finetuned/model.safetensors"


def make_real_project(root: Path, rows: int = 240) -> Path:
    """A committed repository with the code of this one; nothing has run yet."""
    base = root.parent
    (base / "tiny-bert").mkdir()
    root.mkdir()
    write_reviews(base / "reviews.csv", rows)
    copy_of(REPOSITORY, root)
    set_params(root / "params.yaml", {**small_params(make_tiny_bert(base / "tiny-bert"), base / "reviews.csv"), **TRAINING})
    run = runner(root)
    run("git", "init", "--quiet", "--initial-branch", "main")
    commit(run, "start")
    return root


def command(root: Path, server: dict[str, str], stage: str) -> subprocess.Popen[str]:
    """Start a flow of one stage in a project."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.flows.one_stage", stage],
        cwd=root,
        env={**environment(), **server, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def resumed_wrongly(base: Path, server: dict[str, str]) -> str | None:
    """Kill (-9) a flow that trains and run it again; what differs from an undisturbed training, or None."""
    root = make_real_project(base / "killed")
    runner(root)("dvc", "repro", "tokenize", "split")
    twin = base / "undisturbed"
    shutil.copytree(root, twin, symlinks=True)
    runner(twin)("dvc", "repro", "train")
    kill_while_it_trains(root, server)
    again = command(root, server, "train")
    said, _ = again.communicate(timeout=180)
    if again.returncode:
        return f"the next run ended with {again.returncode}: {said[-3000:]}"
    if not resumed_from(root):
        return f"the next run began anew: {said[-3000:]}"
    ours, theirs = (hashlib.sha256((place / MODEL).read_bytes()).hexdigest() for place in (root, twin))
    return None if ours == theirs else f"model {ours}, undisturbed {theirs}"


def kill_while_it_trains(root: Path, server: dict[str, str]) -> None:
    """Start a training and kill its flow when the first checkpoint is whole."""
    flow = command(root, server, "train")
    deadline = time.monotonic() + 120
    while not list((root / ".dagobert" / "checkpoints").glob("*/step-*/manifest.json")):
        assert flow.poll() is None, flow.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint after two minutes"
        time.sleep(0.01)
    os.kill(flow.pid, signal.SIGKILL)
    flow.communicate()
    wait_until_none(root)
    assert not (root / MODEL).exists(), "the training was over before it was killed"


def resumed_from(root: Path) -> int:
    """The step at which the last training went on; 0 when it began anew."""
    lines = (root / ".dagobert" / "events" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return next((int(event["resumed_step"]) for event in map(json.loads, lines) if event.get("resumed_step")), 0)
