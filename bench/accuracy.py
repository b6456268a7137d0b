"""`python -m bench.accuracy`: packed training with attention dropout 0 against the trainer baseline, paired by seed.

Reads the tokens, labels and splits of the repository it stands in (run `dvc repro split` first): the same rows train both
sides, with the same recipe but for what the row says, and the same test rows judge them. `--all-rows` trains the packed
engine alone, and not on the 2,000 rows of the default split but on every row outside the test side that is not nearly the
same as a test row. Every seed is written to `--out` when it is done; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn

from bench.baselines import trainer as hf
from bench.workload import Workload
from dagobert import determinism, files, splitting
from dagobert.batches import IntArray
from dagobert.encoder import choose_device, compute_dtype
from dagobert.heads import classification
from dagobert.labels import LabelMap
from dagobert.params import load_params
from dagobert.pretrained import checkpoint_directory
from dagobert.scoring import Scorer
from dagobert.shards import open_store
from dagobert.stages import paths
from dagobert.stages.split import near_pairs
from dagobert.stages.train import examples, read_labels, side_rows
from dagobert.training import Examples, StopRequest, Trainer

ENGINES = ("dagobert", "trainer")


def sides(rows: int | None, all_rows: bool) -> tuple[Examples, Examples]:
    """Train and test rows of the repository."""
    store, labels = open_store(paths.TOKENS), read_labels(paths.LABELS, 2)
    test = side_rows(paths.SPLITS, "test")
    train: IntArray = side_rows(paths.SPLITS, "train")
    if all_rows:
        train = apart_from(test)
    return examples(store, train[:rows], *labels), examples(store, test[:rows], *labels)


def apart_from(test: IntArray) -> IntArray:
    """Row ids of all clean rows that are neither test rows nor nearly the same as one, shape (N,)."""
    rows: IntArray = pq.read_table(paths.CLEAN, columns=["row_id"])["row_id"].to_numpy()
    side = np.where(np.isin(rows, test), splitting.TEST, splitting.TRAIN).astype(np.int8)
    threshold = load_params(paths.PARAMS).split.near_duplicates
    pairs = [] if threshold is None else near_pairs(paths.CLEAN, side, threshold)
    side[[row for _, *pair in pairs for row in pair if side[row] == splitting.TRAIN]] = splitting.UNUSED
    train: IntArray = rows[side == splitting.TRAIN]
    return train


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
            if loop.state.step % 100 == 0:
                print(f"seed {recipe.seed}: step {loop.state.step} of {loop.total}", file=sys.stderr, flush=True)
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
    """Train, compare, print, write; go on where an earlier run of the same question stopped."""
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
    asked = {
        "train_rows": len(train.row_ids),
        "test_rows": len(test.row_ids),
        "rows": _digest(train.row_ids, test.row_ids),
        "recipe": params.train.model_dump(mode="json", exclude={"seed"}),
    }
    found = _begun(arguments.out, asked)
    for seed in map(str, range(arguments.seeds)):
        for engine in ENGINES[:1] if arguments.all_rows else ENGINES:
            of = found.setdefault(engine, {})
            if seed not in of:
                recipe = params.train.model_copy(update={"seed": int(seed)})
                of[seed] = run(engine, base, train, test, recipe, device)
                files.write_json(arguments.out, asked | {"accuracy": found})
            print(f"seed {seed}: {engine} {of[seed]:.4f}", file=sys.stderr, flush=True)
    result = asked | {"accuracy": found} | _summary(found)
    files.write_json(arguments.out, result)
    for name, said in _summary(found).items():
        print(f"{name}: {said['mean']:+.4f}, standard deviation {said['standard_deviation']:.4f} over {said['seeds']} seeds")
    return 0


def _digest(*rows: IntArray) -> str:
    """Names the rows, so that figures of other rows are not gone on with."""
    return hashlib.sha256(b"|".join(ids.astype("<i8").tobytes() for ids in rows)).hexdigest()[:16]


def _begun(out: Path, asked: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Accuracy by engine and seed that an earlier run of the same question has left in `out`."""
    before = files.read_json(out) if out.is_file() else {}
    same = all(before.get(name) == value for name, value in asked.items())
    return dict(before["accuracy"]) if before and same else {}


def _summary(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds, of each engine and of their difference seed by seed."""
    values = dict(found)
    if len(found) > 1:
        ours, theirs = (found[engine] for engine in ENGINES)
        values["paired difference"] = {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}
    return {
        name: {
            "mean": statistics.mean(of.values()),
            "standard_deviation": statistics.stdev(of.values()) if len(of) > 1 else 0.0,
            "seeds": len(of),
        }
        for name, of in values.items()
    }


if __name__ == "__main__":
    sys.exit(main())
