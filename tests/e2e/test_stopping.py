"""A training that is asked to stop, as a process, and `dvc repro` after it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from dagobert.files import sha256_tree
from tests.e2e.conftest import environment, runner


def test_a_training_stopped_by_sigterm_is_finished_by_dvc_repro_with_the_same_bytes(
    make_workspace: Callable[..., Path],
) -> None:
    workspace = make_workspace("stopped", train__num_train_epochs=40, train__save_steps=10)
    run = runner(workspace)
    run("dvc", "repro", "tokenize", "split")
    program = workspace / ".venv" / "bin"
    training = subprocess.Popen(
        [program / "dagobert", "train"], cwd=workspace, env=environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        while not list((workspace / ".dagobert/checkpoints").glob("*/step-*")):
            assert training.poll() is None, training.communicate()[1]
            time.sleep(0.02)
        training.terminate()
        said = training.communicate(timeout=120)[1]
    finally:
        training.kill()
    assert training.returncode == 75, said
    assert "stopped on SIGTERM after step" in said
    assert "Its state is saved: run again to go on." in said
    assert not (workspace / "models/finetuned/model.safetensors").exists()

    again = subprocess.run(
        [program / "dvc", "repro", "train"], cwd=workspace, env=environment(), capture_output=True, text=True, check=True
    )
    assert "goes on from the checkpoint of step" in again.stdout + again.stderr
    resumed = sha256_tree(workspace / "models/finetuned")
    undisturbed = subprocess.run(
        [program / "dagobert", "train"], cwd=workspace, env=environment(), capture_output=True, text=True, check=True
    )
    assert "goes on" not in undisturbed.stderr
    assert sha256_tree(workspace / "models/finetuned") == resumed
