"""The training bench runs, checks before it measures, and needs no more than it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import correctness, train

PROMISED = ("torch", "transformers", "pyarrow", "pandas", "scikit-learn")

# Read by every Python started below: modules of other distributions do not exist.
HIDE = """
import importlib.machinery, os
hidden = frozenset(os.environ["HIDDEN"].split(","))
find = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else find(name, path, target)
importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
"""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(names: tuple[str, ...]) -> set[str]:
    """The distributions and what they require, extras left out."""
    todo, seen = [plain(name) for name in names], set[str]()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        todo += [plain(re.split(r"[\s;<>=!~\[(]", line)[0]) for line in lines if "extra ==" not in line]
    return seen


def run(directory: Path, **environment: str) -> tuple[dict[str, Any], str]:
    """`python -m bench.train --tiny`: its JSON and its table."""
    root = Path(__file__).parents[3]
    out = directory / "train.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.train", "--tiny", "--threads", "1", "--out", str(out), "--verbose"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(directory), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text()), done.stdout


def test_every_row_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    found, table = run(tmp_path)
    assert found["skipped"] == {train.COMPILED: "train.torch_compile is for a GPU"}
    assert found["sequences_per_second"].keys() == {*train.BASELINES, *train.OURS} - {train.COMPILED}
    for name in (*train.BASELINES, "ceiling", "batch assembly, share of a step", "itself, full_determinism: false"):
        assert f"| {name}" in table
    assert found["packed_against_stock"]["float32"]["packed"]["gradients"] < 1e-5


def test_it_runs_with_nothing_but_what_it_promises(tmp_path: Path) -> None:
    kept = needed(PROMISED)
    hidden = {module for module, owners in packages_distributions().items() if not {plain(o) for o in owners} & kept}
    hidden |= {"pydantic"}  # which the hub's client asks for in some versions, and transformers does without
    assert {"accelerate", "datasets", "ruamel", "dvc", "prefect", "nanotoken", "peft"} <= hidden
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    found, table = run(tmp_path, HIDDEN=",".join(hidden - {"dagobert", "bench"}))
    assert found["skipped"].keys() == {*train.BASELINES[1:4], "scoring texts", train.COMPILED}
    assert "Trainer needs accelerate" in found["skipped"]["trainer"]
    assert "| trainer | not run: Trainer needs accelerate" in table
    assert "| pipeline | not run: no texts" in table
    assert found["ratio"].keys() >= {"tutorial", "padded stand-in", "ceiling"}


@pytest.mark.parametrize(("what", "factor"), [("logits", 1.1), ("gradients", 1.1)])
def test_nothing_is_measured_where_packed_and_stock_differ(what: str, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = correctness.packed

    def wrong(*arguments: Any) -> correctness.Found:
        logits, gradients = packed(*arguments)
        if what == "logits":
            return logits * factor, gradients
        name = "bert.encoder.layer.0.output.LayerNorm.bias"
        return logits, {**gradients, name: gradients[name] * factor}

    monkeypatch.setattr(correctness, "packed", wrong)
    with pytest.raises(SystemExit, match=rf"packed {what} in float32 differ.*nothing was measured"):
        correctness.check("tiny", 64, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_type_that_is_measured_is_checked(dtype: torch.dtype) -> None:
    found = correctness.check("tiny", 64, torch.device("cpu"), dtype)
    assert list(found) == list(dict.fromkeys(["float32", str(dtype).removeprefix("torch.")]))
    # 16 roundings in each of 2 layers, each by at most 2**-8: 2**-8 * sqrt(32)
    assert correctness.tolerance(torch.bfloat16, 2) == pytest.approx(0.0221, abs=1e-4)


def test_the_table_of_a_gpu_shows_the_targets_of_a_gpu() -> None:
    names = (*train.BASELINES, *train.OURS)
    found = {
        "device_type": "cuda",
        "model": "bert-base",
        "skipped": {},
        "sequences_per_second": dict.fromkeys(names, 1.0),
        "ratio": dict.fromkeys([*train.BASELINES, "full_determinism", "torch_compile", "batch assembly", "ceiling"], 1.0),
    }
    table = train.table(found)
    assert re.search(r"\| sequences/s \|.*\| 2,500 \|", table)
    assert re.search(r"\| trainer \|.*\| 4× \|", table)
    assert re.search(r"\| ceiling .*\| 40 % \|", table)
    assert "10×" not in table
    assert train.targets(found | {"model": "minilm-l6"}) == {}
