from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ruamel.yaml import YAML
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from dagobert import cli, files, runner, shards, torchrun
from dagobert.errors import Preempted, StorageError, TrainingError
from dagobert.params import Params, load_params
from dagobert.stages import paths
from dagobert.stages import train as stage
from dagobert.training import StopRequest
from tests.evaluation_inputs import write_inputs
from tests.unit.training_examples import recipe


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    write_inputs(tmp_path, rows=60, sizes=(30, 12, 12))
    files.write_json(tmp_path / "none.json", {})
    for made in (paths.MODEL, paths.TRAIN_REPORT, paths.LOSS_CURVE):
        path = tmp_path / made
        path.unlink() if path.is_file() else [p.unlink() for p in path.iterdir()]
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    torch.use_deterministic_algorithms(False)


def settings(repository: Path, tiny_bert: Path, **changes: Any) -> Params:
    params = load_params(repository / "params.yaml")
    model = params.model.model_copy(update={"name_or_path": str(tiny_bert)})
    return params.model_copy(update={"model": model, "train": recipe(**changes)})


class StopAfterTwoSteps(StopRequest):
    def __init__(self) -> None:
        self.left = 2

    @property
    def asked(self) -> str | None:  # type: ignore[override]
        self.left -= 1
        return "SIGTERM" if self.left < 0 else None


def test_a_model_directory_a_report_and_a_curve(workspace: Path, repository: Path, tiny_bert: Path) -> None:
    stage.run(settings(repository, tiny_bert))
    model: Any = AutoModelForSequenceClassification.from_pretrained(paths.MODEL)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    about = json.loads((paths.MODEL / "dagobert.json").read_text())
    assert about["tokenize"].keys() == {"max_length", "truncation", "stride"}
    assert about["labels"]["names"] == ["negative", "positive"]
    assert set(about["data"]) == {"data/tokens", "data/labels.parquet", "data/labels.json", "data/splits.parquet"}
    with safe_open(paths.MODEL / "model.safetensors", "pt") as file:
        assert len(file.metadata() or {}) <= 1
    report = json.loads(paths.TRAIN_REPORT.read_text())
    assert report["fingerprint"] == about["fingerprint"]
    assert report["base_model"] == about["base_model"]
    assert report["steps"] == 8  # 30 rows in steps of 8, twice
    assert [entry["step"] for entry in report["validation"]] == [4, 8]
    assert about["validation"]["step"] == report["best_step"]
    lines = paths.LOSS_CURVE.read_text().splitlines()
    assert lines[0] == "step,split,loss"
    assert sum(",training," in line for line in lines) == 8
    assert sum(",validation," in line for line in lines) == 2
    assert not [p for p in paths.CHECKPOINTS.iterdir() if p.is_dir()]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_the_rows_of_a_side_are_found_in_order(tmp_path: Path, kind: pa.DataType) -> None:
    sides = pa.array(["test", "train", None, "validation", "train"]).cast(kind)
    pq.write_table(pa.table({"row_id": [9, 7, 5, 3, 1], "split": sides}), tmp_path / "splits.parquet")
    assert stage.side_rows(tmp_path / "splits.parquet", "train").tolist() == [7, 1]
    assert stage.side_rows(tmp_path / "splits.parquet", "none").tolist() == []


def test_a_stopped_stage_goes_on_and_publishes_the_same_bytes(
    workspace: Path, repository: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = settings(repository, tiny_bert)

    def published() -> list[str]:
        return [files.sha256_tree(path) for path in stage.OUTPUTS]

    stage.run(params)
    expected = published()
    with monkeypatch.context() as patch:
        patch.setattr(stage, "StopRequest", StopAfterTwoSteps)
        with pytest.raises(Preempted) as stopped:
            stage.run(params)
    assert stopped.value.exit_code == 75
    assert len([p for p in paths.CHECKPOINTS.iterdir() if p.is_dir()]) == 1
    stage.run(params)
    assert published() == expected


def test_another_parameter_does_not_take_up_the_checkpoint(
    workspace: Path, repository: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stage, "StopRequest", StopAfterTwoSteps)
        with pytest.raises(Preempted):
            stage.run(settings(repository, tiny_bert))
    with runner.events.recording("train", None):
        stage.run(settings(repository, tiny_bert, learning_rate=2e-3))
    assert "goes on" not in capsys.readouterr().err


def test_a_disk_too_full_for_the_model_is_named(
    workspace: Path, repository: Path, tiny_bert: Path, tiny_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(paths.MODEL)
    paths.MODEL.parent.rmdir()
    paths.MODEL.parent.symlink_to(tiny_disk(64))
    with pytest.raises(StorageError, match=r"models/finetuned: cannot be written: the disk is full"):
        stage.run(settings(repository, tiny_bert))
    assert not paths.MODEL.exists()
    assert not paths.TRAIN_REPORT.exists()
    assert list(paths.CHECKPOINTS.glob("*/step-*"))  # the run goes on from here when there is room


def write_params(repository: Path, model: Path, **changes: Any) -> None:
    """params.yaml with the recipe of the tests."""
    document = YAML().load((repository / "params.yaml").read_text(encoding="utf-8"))
    document["train"] = recipe(**changes).model_dump(mode="json")
    document["model"]["name_or_path"] = str(model)
    YAML().dump(document, paths.PARAMS)


@pytest.mark.parametrize("launcher", ["none", "torchrun"])
def test_a_loss_that_is_nan_publishes_nothing(
    workspace: Path, repository: Path, tiny_bert: Path, capfd: pytest.CaptureFixture[str], launcher: str
) -> None:
    """The last position is NaN: the longest rows of the first step are named."""
    broken = workspace / "broken"
    shutil.copytree(tiny_bert, broken)
    weights = load_file(broken / "model.safetensors")
    weights["embeddings.position_embeddings.weight"][31] = float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    shutil.rmtree(paths.MODEL)
    write_params(repository, broken, launcher=launcher, nproc_per_node=2)
    assert cli.main(["train"]) == 2
    said = capfd.readouterr().err
    found = re.search(r"the loss of optimizer step 1 is nan \(row_id ([\d, ]+)\)\. Nothing was published", said)
    assert found is not None, said
    store = shards.open_store(paths.TOKENS)
    rows = [int(row) for row in found[1].split(",")]
    assert set(rows) < set(stage.side_rows(paths.SPLITS, "train").tolist())
    assert all(length == 32 for length in store.lengths[store.select(np.array(rows)).sequences])
    assert not any(path.exists() for path in stage.OUTPUTS)
    assert not list(paths.CHECKPOINTS.glob("*/step-*"))


def test_the_recipe_s_options_reach_the_published_model(workspace: Path, repository: Path, tiny_bert: Path) -> None:
    """Which parameters may be frozen, drawn anew and adapted is tested with `prepare`: here, that the stage asks it."""
    pytest.importorskip("peft")
    stage.run(settings(repository, tiny_bert, reinit_layers=1, freeze=1, lora_r=2, hidden_dropout_prob=0.05))
    before, after = load_file(tiny_bert / "model.safetensors"), load_file(paths.MODEL / "model.safetensors")
    kept = [torch.equal(after[f"bert.encoder.layer.{n}.output.LayerNorm.weight"], torch.ones(32)) for n in (0, 1)]
    assert kept == [True, True]  # adapted by LoRA: LayerNorm stays as it was, or as it was drawn
    drawn = after["bert.encoder.layer.1.output.dense.weight"] - before["encoder.layer.1.output.dense.weight"]
    assert float(drawn.std()) > 0.02  # two draws of deviation 0.02 differ by more than a little training moves them
    assert not any("lora" in name for name in after)
    assert json.loads((paths.MODEL / "config.json").read_text())["hidden_dropout_prob"] == 0.05


def test_an_empty_side_is_an_error(workspace: Path, repository: Path, tiny_bert: Path) -> None:
    write_inputs(workspace / "other", rows=60, sizes=(30, 0, 12))
    (workspace / "other" / paths.SPLITS).rename(paths.SPLITS)
    with pytest.raises(TrainingError, match=r"the validation side is empty\. Raise split\.validation_size"):
        stage.run(settings(repository, tiny_bert))


def test_torchrun_that_fails_is_an_error(
    workspace: Path, repository: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchrun.sys, "executable", "/bin/false")
    with pytest.raises(TrainingError, match="ended with exit code 1"):
        stage.run(settings(repository, tiny_bert, launcher="torchrun", nproc_per_node=2))


def workers_of(agent: psutil.Process) -> dict[str, psutil.Process]:
    """The processes that torchrun's agent has started, by rank."""
    found = {}
    for process in agent.children():
        with contextlib.suppress(psutil.Error):
            if "RANK" in (environment := process.environ()):
                found[environment["RANK"]] = process
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="needs the death signal of Linux")
def test_whoever_is_killed_in_torchrun_all_end_and_the_next_run_goes_on(
    workspace: Path, repository: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"launcher": "torchrun", "nproc_per_node": 2, "save_steps": 5, "num_train_epochs": 40}
    write_params(repository, tiny_bert, **changes, eval_strategy="steps", eval_steps=100)
    command = [sys.executable, "-m", "dagobert", "train"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def published() -> list[str]:
        return [files.sha256_tree(path) for path in stage.OUTPUTS]

    subprocess.run(command, check=True, capture_output=True)
    expected = published()
    events = [json.loads(line) for line in (paths.EVENTS / "train.jsonl").read_text().splitlines()]
    assert [e["kind"] for e in events if e["kind"] in ("start", "end")] == ["start", "end"]
    assert any(e["kind"] == "progress" and e["what"] == "training" for e in events)
    for victim in ("worker", "agent", "stage"):
        shutil.rmtree(paths.MODEL, ignore_errors=True)
        before = set(paths.CHECKPOINTS.glob("*/*/"))
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            while not set(paths.CHECKPOINTS.glob("*/*/")) - before:
                assert process.poll() is None
                time.sleep(0.02)
            (agent,) = psutil.Process(process.pid).children()
            workers = workers_of(agent)
            assert workers.keys() == {"0", "1"}
            {"worker": workers["1"], "agent": agent, "stage": process}[victim].kill()
            _, said = process.communicate(timeout=90)
            assert process.returncode == (-signal.SIGKILL if victim == "stage" else 128 + signal.SIGKILL)
            assert victim != "worker" or "Its state is saved" not in said
            assert victim == "stage" or "Run again to go on from the last checkpoint" in said
            assert not psutil.wait_procs([agent, *workers.values()], timeout=60)[1]
            assert not paths.MODEL.exists()
        finally:
            process.kill()
            process.communicate()
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "goes on" in again.stderr
    assert published() == expected


class Node:
    """A machine of a run: a directory of its own, in which `dagobert train` runs."""

    def __init__(self, directory: Path, number: int, port: int) -> None:
        self.directory = directory
        where = {"PET_NODE_RANK": str(number), "PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dagobert", "train"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(Path(torchrun.__file__).parents[1]), **where},
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> str:
        """Wait; what it said."""
        return self.process.communicate(timeout=120)[1]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.mark.skipif(sys.platform != "linux", reason="needs the death signal of Linux")
def test_two_nodes_without_a_shared_disk_stop_are_killed_and_go_on(workspace: Path, repository: Path, tiny_bert: Path) -> None:
    """Only the first node has checkpoints; the second goes on from them, and the bytes are those of an undisturbed run."""
    document = YAML().load((repository / "params.yaml").read_text(encoding="utf-8"))
    changes = {"launcher": "torchrun", "nnodes": 2, "save_steps": 5, "num_train_epochs": 20}
    document["train"] = recipe(**changes, eval_strategy="steps", eval_steps=100).model_dump(mode="json")
    document["model"]["name_or_path"] = str(tiny_bert)
    YAML().dump(document, paths.PARAMS)
    homes = [workspace, workspace.parent / f"{workspace.name}-second"]
    shutil.copytree(*homes)

    def start() -> list[Node]:
        port = free_port()
        return [Node(home, number, port) for number, home in enumerate(homes)]

    def saved(since: set[Path]) -> bool:
        return bool(set((homes[0] / paths.CHECKPOINTS).glob("*/*/")) - since)

    nodes = start()
    said = [node.end() for node in nodes]
    assert [node.process.returncode for node in nodes] == [0, 0], said
    expected = files.sha256_tree(homes[0] / paths.MODEL)
    assert not (homes[1] / paths.MODEL / "model.safetensors").exists()
    shutil.rmtree(homes[0] / paths.MODEL)
    for how in ("stopped", "killed"):
        before, nodes = set((homes[0] / paths.CHECKPOINTS).glob("*/*/")), start()
        try:
            while not saved(before):
                assert nodes[0].process.poll() is None, nodes[0].end()
                time.sleep(0.02)
            if how == "stopped":
                nodes[1].process.terminate()
            else:
                (agent,) = psutil.Process(nodes[1].process.pid).children()
                workers_of(agent)["1"].kill()
            said = [node.end() for node in nodes]
        finally:
            for node in nodes:
                node.process.kill()
        if how == "stopped":
            assert [node.process.returncode for node in nodes] == [75, 75], said
            assert all("Its state is saved" in text for text in said)
        else:
            assert nodes[1].process.returncode == 128 + signal.SIGKILL
            assert nodes[0].process.returncode not in (0, 75)
            assert not any("Its state is saved" in text for text in said)
    nodes = start()
    said = [node.end() for node in nodes]
    assert [node.process.returncode for node in nodes] == [0, 0], said
    assert "goes on from the checkpoint of step" in said[0]
    assert files.sha256_tree(homes[0] / paths.MODEL) == expected
    assert not list((homes[1] / paths.CHECKPOINTS).glob("*/step-*"))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, r"PET_NODE_RANK is ''. Set it to this machine's number, 0 to 1"),
        ({"PET_NODE_RANK": "2"}, r"PET_NODE_RANK is '2'"),
        ({"PET_NODE_RANK": "1", "PET_RDZV_ENDPOINT": "here"}, r"PET_RDZV_ENDPOINT is 'here'. Set it to HOST:PORT of node 0"),
    ],
)
def test_several_nodes_are_told_where_they_meet(environment: dict[str, str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        torchrun.meeting(2, environment)
    assert torchrun.meeting(1, {}) == ["--standalone"]
    assert "--node-rank=1" in torchrun.meeting(2, {"PET_NODE_RANK": "1", "PET_RDZV_ENDPOINT": "a:1"})


@pytest.mark.parametrize(
    ("ends", "code", "asked", "message", "exit_code"),
    [
        ([75, 75], 1, "SIGTERM", "Its state is saved", 75),
        ([75, 75], 75, None, "stopped with the others. Its state is saved", 75),
        ([], 1, "SIGTERM", "ended before the state of that moment was saved", 1),
        ([2, 2], 1, "SIGTERM", "ended before the state of that moment was saved", 2),
        ([2, 0], 2, None, "ended with exit code 2", 2),
        ([], 137, None, "ended with exit code 137", 137),
        ([], -9, None, "ended with exit code 137", 137),
        ([75, 75], -9, None, "ended with exit code 137", 137),
    ],
)
def test_the_state_is_said_to_be_saved_where_it_is(
    ends: list[int], code: int, asked: str | None, message: str, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def agent(arguments: list[str], environment: dict[str, str]) -> tuple[int, str | None]:
        for rank, end in enumerate(ends):
            monkeypatch.setenv(torchrun.ENDS, environment[torchrun.ENDS])
            monkeypatch.setenv("RANK", str(rank))
            assert torchrun.said(end) == end
        return code, asked

    monkeypatch.setattr(torchrun, "_run", agent)
    with pytest.raises((Preempted, TrainingError), match=message) as caught:
        torchrun.launch(1, 2, "module")
    assert caught.value.exit_code == exit_code
    assert ("Its state is saved" in str(caught.value)) == (exit_code == 75)
