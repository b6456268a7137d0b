"""`train`: tokens, labels and splits to a fine-tuned model.

A killed run goes on from its last checkpoint: those lie under `.dagobert/checkpoints/`, keyed by the hash of everything the
result depends on (inputs, checkpoint, parameters, this code, the machine's fingerprint), and are removed when the model is
published.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dagobert import __version__, determinism, distributed, events, files, locks, lora, torchrun, vocabulary
from dagobert.checkpoints import Checkpoints, prune, run_key
from dagobert.encoder import choose_device, compute_dtype
from dagobert.errors import DagobertError, NonFiniteLossError, TrainingError
from dagobert.heads import classification
from dagobert.labels import LabelMap
from dagobert.lifeline import end_with_parent
from dagobert.pretrained import checkpoint_directory
from dagobert.shards import TOKENIZER, IntArray, TokenStore, open_store
from dagobert.stages import paths
from dagobert.training import Examples, Outcome, StopRequest, fine_tune, prepare

if TYPE_CHECKING:
    from dagobert.params import Params

OUTPUTS: tuple[Path, ...] = (paths.MODEL, paths.TRAIN_REPORT, paths.LOSS_CURVE)


def inputs(params: Params) -> list[Path]:
    """Files and directories the stage reads."""
    return [paths.TOKENS, paths.LABELS, paths.LABEL_MAP, paths.SPLITS]


def run(params: Params) -> None:
    """Fine-tune the checkpoint named by model.name_or_path, one training at a time, in this process or in several."""
    with locks.training(choose_device(params.train.device).type, paths.CHECKPOINTS):
        if params.train.launcher == "torchrun":
            torchrun.launch(params.train.nnodes, params.train.nproc_per_node, __name__)
        else:
            train_model(params)


def train_model(params: Params) -> None:
    """Fine-tune in this process, alone or as one of torchrun's."""
    recipe = params.train
    determinism.set_up(threads=recipe.threads, seed=recipe.seed, deterministic=recipe.full_determinism)
    device = distributed.start(choose_device(recipe.device))
    dtype = compute_dtype(recipe.precision, device)
    fingerprint = determinism.fingerprint(device, dtype, deterministic=recipe.full_determinism)
    base = checkpoint_directory(params.model.name_or_path)
    labels = LabelMap.from_json(files.read_json(paths.LABEL_MAP))
    store = open_store(paths.TOKENS)
    rows = read_labels(paths.LABELS, len(labels.names))
    train, validation = (examples(store, side_rows(paths.SPLITS, side), *rows) for side in ("train", "validation"))
    for side, found in (("train", train), ("validation", validation)):
        if len(found.row_ids) == 0:
            raise TrainingError(f"{paths.SPLITS}: the {side} side is empty. Raise split.{side}_size.")

    lineage = {
        "format": 1,
        "dagobert": __version__,
        "base_model": {"name_or_path": params.model.name_or_path, "sha256": weights_sha256(base)},
        "clean": store.manifest.clean if store.manifest else {},
        "tokenize": tokenization(store),
        "labels": files.read_json(paths.LABEL_MAP),
        "train": recipe.model_dump(mode="json"),
        "model": params.model.model_dump(mode="json"),
        "data": {path.as_posix(): files.sha256_tree(path) for path in inputs(params)},
        "fingerprint": fingerprint,
    }
    key = run_key({**lineage, "code": code_sha256()})
    if not distributed.agree(run_key({**lineage, "fingerprint": None, "code": code_sha256()})):
        raise TrainingError("the nodes differ in data, checkpoint, params.yaml or code. Give all of them the same.")
    checkpoints = Checkpoints(paths.CHECKPOINTS / key)

    def grow(model: Any) -> None:
        if store.manifest is not None:
            vocabulary.grow(model, paths.TOKENS / TOKENIZER, store.manifest.tokenizer.get("added", ()))

    classifier = prepare(base, labels, recipe, device, dtype=dtype, grow=grow)
    how = "packed" if not classifier.padded else "padded, batches of similar length"
    events.say(
        f"{len(train.row_ids):,} rows to train, {len(validation.row_ids):,} to validate; {base.name}, "
        f"{fingerprint['compute_dtype']} on {device.type}, {fingerprint['threads']} threads, {how}"
    )
    with StopRequest().listening() as stop:
        outcome = fine_tune(classifier, train, validation, recipe, checkpoints=checkpoints, stop=stop)
    if recipe.lora_r is not None:
        lora.merge(classifier.model)
    if distributed.rank() == 0:
        publish(classifier.model, lineage, outcome)
        checkpoints.clear()
        prune(paths.CHECKPOINTS, key)
    distributed.wait()
    distributed.stop()


def read_labels(path: Path, n_classes: int) -> tuple[IntArray, npt.NDArray[Any]]:
    """Row ids (R,) and their labels: ids (R,), or marks (R, C) where a row may have several."""
    table = pq.read_table(path)
    row_ids = table["row_id"].to_numpy()
    if "label_id" in table.schema.names:
        return row_ids, table["label_id"].to_numpy().astype(np.int64)
    lists = table["label_ids"].combine_chunks()
    marks = np.zeros((len(row_ids), n_classes), dtype=np.float32)
    row_of = np.repeat(np.arange(len(row_ids)), np.diff(lists.offsets.to_numpy()))
    marks[row_of, lists.flatten().to_numpy()] = 1.0
    return row_ids, marks


def side_rows(path: Path, side: str) -> IntArray:
    """Row ids of one side of the split, in order."""
    table = pq.read_table(path, columns=["row_id", "split"])
    ids: IntArray = table.filter(pc.equal(table["split"].cast(pa.string()), side))["row_id"].to_numpy()
    return ids


def examples(store: TokenStore, rows: IntArray, row_ids: IntArray, labels: npt.NDArray[Any]) -> Examples:
    """The given rows with their sequences and labels."""
    order = np.argsort(row_ids, kind="stable")
    at = order[np.searchsorted(row_ids[order], rows)] if len(rows) else np.zeros(0, np.int64)
    selection = store.select(rows)
    return Examples(store, selection.sequences, selection.document, rows, labels[at])


def tokenization(store: TokenStore) -> dict[str, Any]:
    """How the tokens were made, for predicting in the same way."""
    assert store.manifest is not None
    m = store.manifest
    return {"max_length": m.max_length, "truncation": m.truncation, "stride": m.stride}


def weights_sha256(directory: Path) -> str:
    """Hash of a checkpoint: its configuration and weights."""
    digest = hashlib.sha256()
    for path in [directory / "config.json", *sorted(directory.glob("*.safetensors"))]:
        digest.update(f"{path.name}\0{files.sha256_file(path)}\n".encode())
    return digest.hexdigest()


def code_sha256() -> str:
    """Hash of the library's own code: a checkpoint of other code is not taken up."""
    return hashlib.sha256(
        "".join(f"{p.name}\0{files.sha256_file(p)}\n" for p in sorted(Path(__file__).parents[1].rglob("*.py"))).encode()
    ).hexdigest()


def publish(model: Any, lineage: dict[str, Any], outcome: Outcome) -> None:
    """Write the model directory, the report and the loss curve, each whole or not at all."""
    with files.atomic_directory(paths.MODEL) as directory:
        with classification.quiet():
            model.save_pretrained(directory)
        for file in sorted((paths.TOKENS / TOKENIZER).iterdir()):
            shutil.copyfile(file, directory / file.name)
        files.write_json(directory / "dagobert.json", {**lineage, "validation": outcome.best})
    report = {
        "best_step": outcome.best["step"],
        "best_epoch": outcome.best["epoch"],
        "validation": outcome.validation,
        "steps": outcome.steps,
        "planned_steps": outcome.total_steps,
        "stopped_early": outcome.stopped_early,
        "examples": outcome.examples,
        "tokens": outcome.tokens,
        "base_model": lineage["base_model"],
        "fingerprint": lineage["fingerprint"],
        "device": lineage["fingerprint"]["device"],
        "precision": lineage["fingerprint"]["compute_dtype"],
        "threads": lineage["fingerprint"]["threads"],
    }
    files.write_json(paths.TRAIN_REPORT, report)
    lines = [f"{step},training,{loss:.6f}" for step, loss in outcome.curve]
    lines += [f"{entry['step']},validation,{entry['loss']:.6f}" for entry in outcome.validation]
    with files.atomic_file(paths.LOSS_CURVE) as temporary:
        temporary.write_text("step,split,loss\n" + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    """What torchrun starts: one process of a run. Only the first of a node shows progress."""
    from dagobert.params import load_params

    end_with_parent()
    first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    params = load_params(paths.PARAMS)
    try:
        with events.joining("train", paths.EVENTS / "train.jsonl") if first else contextlib.nullcontext():
            train_model(params)
    except DagobertError as error:
        if first:
            print(f"dagobert train: {error}", file=sys.stderr, flush=True)
        if isinstance(error, NonFiniteLossError):  # all processes found it together: none may end before the first has said so
            distributed.wait()
        return torchrun.said(error.exit_code)
    return torchrun.said(0)


if __name__ == "__main__":
    sys.exit(main())
