"""`python -m bench.accuracy`: packed training with attention dropout 0 against the trainer baseline, paired by seed.

Reads the tokens, labels and splits of the repository it stands in (run `dvc repro split` first): the same rows train both
sides, with the same recipe but for what the row says, and the same test rows judge them. `--all-rows` trains on every row
outside the test side instead of the 2,000 of the default split, the packed engine alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.baselines import trainer as hf
from bench.workload import Workload
from dagobert import determinism, files
from dagobert.batches import IntArray
from dagobert.encoder import choose_device, compute_dtype
from dagobert.heads import classification
from dagobert.labels import LabelMap
from dagobert.params import load_params
from dagobert.pretrained import checkpoint_directory
from dagobert.scoring import Scorer
from dagobert.shards import open_store
from dagobert.stages import paths
from dagobert.stages.train import examples, read_labels, side_rows
from dagobert.training import Examples, StopRequest, Trainer


def sides(rows: int | None, all_rows: bool) -> tuple[Examples, Examples]:
    """Train and test rows of the repository."""
    store, labels = open_store(paths.TOKENS), read_labels(paths.LABELS, 2)
    test = side_rows(paths.SPLITS, "test")
    train: IntArray = side_rows(paths.SPLITS, "train")
    if all_rows:
        train = np.setdiff1d(labels[0], test)
    return examples(store, train[:rows], *labels), examples(store, test[:rows], *labels)


def accuracy(model: nn.Module, test: Examples, device: torch.device, dtype: torch.dtype) -> float:
    """Share of test rows that are right."""
    logits = Scorer(classification.runner(model, dtype), device, 2).logits(test.store, test.sequences)
    return float((logits.argmax(1) == test.labels).mean())


def run(engine: str, base: Path, train: Examples, test: Examples, recipe: Any, device: torch.device) -> float:
    """Train with one engine and judge."""
    dtype = compute_dtype(recipe.precision, device)
    model = classification.load(
        base,
        LabelMap.from_json(files.read_json(paths.LABEL_MAP)),
        hidden_dropout=recipe.hidden_dropout_prob,
        attention_dropout=0.1 if engine == "trainer" else recipe.attention_probs_dropout_prob,
        head_dropout=recipe.classifier_dropout,
        seed=recipe.seed,
    ).to(device)
    if engine == "dagobert":
        loop = Trainer(classification.runner(model, dtype), train, test, recipe, None, StopRequest())
        while loop.state.step < loop.total:
            loop._train_step()
    else:
        work = Workload([train.store.sequence(i).astype(np.int64) for i in train.sequences], train.labels)
        with tempfile.TemporaryDirectory() as out:
            hf.trainer(
                model,
                work,
                device,
                Path(out),
                per_device_train_batch_size=recipe.train_batch_size,
                num_train_epochs=recipe.num_train_epochs,
                learning_rate=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                warmup_steps=recipe.warmup_steps,
                seed=recipe.seed,
                bf16=dtype == torch.bfloat16,
            ).train()
    return accuracy(model, test, device, dtype)


def main(argv: list[str] | None = None) -> int:
    """Train, compare, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=None, help="at most so many rows a side (to try the benchmark)")
    parser.add_argument("--all-rows", action="store_true", help="train on every row outside the test side, packed only")
    parser.add_argument("--out", type=Path, default=Path("reports/bench/accuracy.json"))
    arguments = parser.parse_args(argv)
    params = load_params(paths.PARAMS)
    device = choose_device(params.train.device)
    determinism.set_up(threads=params.train.threads, seed=0, deterministic=params.train.full_determinism)
    train, test = sides(arguments.rows, arguments.all_rows)
    base = checkpoint_directory(params.model.name_or_path)
    found: dict[str, list[float]] = {"dagobert": []} if arguments.all_rows else {"dagobert": [], "trainer": []}
    for seed in range(arguments.seeds):
        for engine, values in found.items():
            values.append(run(engine, base, train, test, params.train.model_copy(update={"seed": seed}), device))
            print(f"seed {seed}: {engine} {values[-1]:.4f}", file=sys.stderr, flush=True)
    result: dict[str, Any] = {"train_rows": len(train.row_ids), "test_rows": len(test.row_ids), "accuracy": found}
    for engine, values in found.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{engine}: {statistics.mean(values):.4f} ± {spread:.4f} over {len(values)} seeds")
    if "trainer" in found and arguments.seeds > 1:
        differences = [a - b for a, b in zip(found["dagobert"], found["trainer"], strict=True)]
        result["paired_difference"] = {
            "mean": statistics.mean(differences),
            "standard_deviation": statistics.stdev(differences),
        }
        print(f"paired difference: {statistics.mean(differences):+.4f} ± {spread:.4f}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
