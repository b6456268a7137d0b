"""A repository whose records are written by hand: git, `dvc.lock` and cache objects, without running DVC or any stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dagobert.objects import md5_bytes
from dagobert.repository import Repository
from tests.reproduce import toy

GRAPH = """\
stages:
  train:
    cmd: "true"
    params: [train]
    outs:
{outs}
"""
UNCACHED = ("reports/metrics.json", "reports/data.json", "data/labels.json")


def make(root: Path) -> Repository:
    root.mkdir()
    toy.git(root, "init", "--quiet", "--initial-branch=main")
    toy.git(root, "config", "user.name", "Toy")
    toy.git(root, "config", "user.email", "toy@example.org")
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (root / ".gitignore").write_text("/.dvc/cache\n/.dagobert\n*.parquet\n/models\n")
    return Repository(root)


def record(repository: Repository, outputs: dict[str, bytes | dict[str, bytes]], params: dict[str, Any], message: str) -> str:
    """Commit a record of these outputs (directories as {name: bytes}); its commit."""
    root, lines = repository.root, []
    outs = [f"      - {path}: {{cache: {str(path not in UNCACHED).lower()}}}" for path in outputs]
    (root / "dvc.yaml").write_text(GRAPH.format(outs="\n".join(outs)))
    (root / "params.yaml").write_text(json.dumps({"train": params}))
    for path, content in outputs.items():
        if isinstance(content, dict):
            listing = [{"md5": store(repository, content[name]), "relpath": name} for name in sorted(content)]
            md5 = store(repository, json.dumps(listing, sort_keys=True).encode(), ".dir")
        else:
            md5 = store(repository, content)
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        lines.append({"path": path, "hash": "md5", "md5": md5, "size": 1})
    stage = {"cmd": "true", "deps": [], "params": {"params.yaml": {"train": params}}, "outs": lines}
    (root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"train": stage}}))
    return toy.commit(root, message)


def store(repository: Repository, content: bytes, suffix: str = "") -> str:
    md5 = md5_bytes(content) + suffix
    path = repository.cache.path(md5)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


def result(
    texts: Sequence[str], labels: Sequence[str], sides: Sequence[str], right: Sequence[bool], *, ece: float = 0.02
) -> dict[str, bytes | dict[str, bytes]]:
    """Outputs of a run: `right` says which test rows the model got right, in order."""
    n = len(texts)
    ids = [sorted(set(labels)).index(label) for label in labels]
    test = [i for i in range(n) if sides[i] == "test"]
    accuracy = sum(right) / len(test)
    predicted = [ids[i] if ok else 1 - ids[i] for i, ok in zip(test, right, strict=True)]
    metrics = {"test": {"n": len(test), "accuracy": accuracy, "macro_f1": accuracy, "log_loss": 0.5, "ece": ece}}
    data = {"rows_read": n + 1, "rows_not_selected": 0, "rows_out": n, "rows_quarantined": 1}
    return {
        "data/clean.parquet": parquet({"row_id": range(n), "text": texts, "label": labels}),
        "data/splits.parquet": parquet({"row_id": range(n), "split": sides}),
        "data/labels.parquet": parquet({"row_id": range(n), "label_id": ids}),
        "reports/predictions.parquet": parquet({"row_id": test, "label_id": [ids[i] for i in test], "predicted_id": predicted}),
        "reports/metrics.json": json.dumps(metrics).encode(),
        "reports/data.json": json.dumps(data).encode(),
        "models/finetuned": {"config.json": b"{}", "model.safetensors": json.dumps(list(right)).encode()},
    }


def parquet(columns: dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), sink)
    return bytes(sink.getvalue().to_pybytes())
