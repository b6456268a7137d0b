"""Small, realistic inputs of `evaluate`, written as the stages before it write them, and a scorer that needs no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dagobert import files, shards
from dagobert.stages import paths

GOOD = ["good", "great", "love", "fun", "happy", "wonderful", "best"]
BAD = ["bad", "awful", "hate", "boring", "sad", "terrible", "worst"]
DULL = ["plain", "usual", "average", "ordinary"]
FILLER = 'this film was a movie of plot and acting it is not very one two three <b>&amp; "quoted"</b>'.split()
WORDS = {2: (BAD, GOOD), 3: (BAD, GOOD, DULL)}
NAMES = {2: ["negative", "positive"], 3: ["negative", "positive", "so-so"]}


@dataclass
class FakeScorer:
    """Logits that are mostly right: the true label's is raised, by a noise that depends on the row alone."""

    labels: NDArray[np.int64]
    n_classes: int
    rows: NDArray[np.int64]

    def logits(self, store: Any, index: Any = None, progress: Any = None) -> NDArray[np.float32]:
        rows = store.row_ids[np.arange(len(store)) if index is None else np.asarray(index)]
        rng = np.random.default_rng(7)
        noise = rng.normal(0, 1.6, (int(self.rows.max()) + 1, self.n_classes))
        label_of = np.zeros(int(self.rows.max()) + 1, dtype=np.int64)
        label_of[self.rows] = self.labels
        logits = noise[rows]
        logits[np.arange(len(rows)), label_of[rows]] += 2.5
        if progress is not None:
            progress.update(len(rows))
        result: NDArray[np.float32] = logits.astype(np.float32)
        return result


def write_inputs(
    root: Path, rows: int = 240, n_classes: int = 2, sizes: tuple[int, int, int] = (140, 30, 60), multi: bool = False
) -> FakeScorer:
    """Fill data/, models/finetuned/ and reports/ under `root` as a run up to `train` would; give a scorer for it."""
    rng = np.random.default_rng(1)
    row_ids = np.arange(rows, dtype=np.int64) * 2 + 1  # some rows were quarantined
    labels = rng.integers(0, n_classes, rows).astype(np.int64)
    texts = [_text(rng, WORDS[n_classes][label]) for label in labels]
    texts[0] = '<script>alert("x")</script> bad \u202e film \x07'
    write = {
        paths.CLEAN: {
            "row_id": row_ids,
            "text": texts,
            "label": [str(i) for i in labels],
            "source_file": pa.array([f"reviews-{i % 2}.csv" for i in range(rows)]).dictionary_encode(),
            "source_line": row_ids + 1,
        },
        paths.LABELS: {"row_id": row_ids, **_encoded(labels, multi)},
        paths.SPLITS: {"row_id": row_ids, "split": _sides(rng, rows, sizes)},
    }
    for path, columns in write.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), root / path)
    _json(root / paths.LABEL_MAP, _label_map(labels, n_classes, multi))
    _tokens(root / paths.TOKENS, row_ids, [2 + len(text.split()) for text in texts])
    _reports(root, rows, labels, n_classes, sizes)
    _model(root / paths.MODEL)
    return FakeScorer(labels, n_classes, row_ids)


def _text(rng: np.random.Generator, words: list[str]) -> str:
    chosen = [*rng.choice(words, 2), *rng.choice(FILLER, int(rng.integers(3, 40)))]
    return " ".join(rng.permutation(chosen))


def _sides(rng: np.random.Generator, rows: int, sizes: tuple[int, int, int]) -> list[str]:
    train, validation, test = sizes
    rest = rows - sum(sizes)
    names = ["train"] * train + ["validation"] * validation + ["test"] * test + ["unused"] * rest
    return [str(name) for name in rng.permutation(names)]


def _encoded(labels: NDArray[np.int64], multi: bool) -> dict[str, Any]:
    if not multi:
        return {"label_id": pa.array(labels, pa.int32())}
    lists = [[] if i % 7 == 0 else sorted({int(label), 0} if i % 5 == 0 else {int(label)}) for i, label in enumerate(labels)]
    return {"label_ids": pa.array(lists, pa.list_(pa.int32()))}


def _label_map(labels: NDArray[np.int64], n_classes: int, multi: bool) -> dict[str, Any]:
    return {
        "problem_type": "multi_label_classification" if multi else "single_label_classification",
        "classes": [str(i) for i in range(n_classes)],
        "names": NAMES[n_classes],
        "counts": np.bincount(labels, minlength=n_classes).tolist(),
    }


def _tokens(directory: Path, row_ids: NDArray[np.int64], lengths: list[int], max_length: int = 32) -> None:
    directory.mkdir(parents=True)
    (directory / shards.TOKENIZER).mkdir()
    (directory / shards.TOKENIZER / "vocab.txt").write_text("[PAD]\n")
    kept = np.minimum(lengths, max_length)
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    sequences = shards.Sequences(
        input_ids=np.full(offsets[-1], 7, dtype=np.uint16),
        offsets=offsets,
        row_ids=row_ids,
        n_truncated=np.asarray(lengths) - kept,
        n_unknown=np.where(np.arange(len(kept)) % 10 == 0, 1, 0),
    )
    part = shards.write_part(directory, 0, sequences)
    manifest = shards.Manifest(
        tokenizer={"name_or_path": "tiny", "sha256": files.sha256_tree(directory / shards.TOKENIZER)},
        max_length=max_length,
        truncation="head+tail",
        stride=None,
        vocab_size=100,
        special_ids={"pad": 0, "cls": 2, "sep": 3, "unk": 1, "mask": 4},
        n_rows=len(row_ids),
        n_sequences=len(row_ids),
        n_tokens=int(offsets[-1]),
        clean={},
        parts=(part,),
    )
    shards.write_manifest(directory, manifest)


def _reports(root: Path, rows: int, labels: NDArray[np.int64], n_classes: int, sizes: tuple[int, int, int]) -> None:
    _json(
        root / paths.DATA_REPORT,
        {
            "rows_read": 2 * rows + 20,
            "rows_not_selected": 20,
            "rows_out": rows,
            "rows_quarantined": rows,
            "quarantined_by_reason": {"empty_text": rows - 3, "duplicate": 3},
            "labels": {str(i): int(n) for i, n in enumerate(np.bincount(labels, minlength=n_classes))},
            "examples": {
                "empty_text": [{"file": "a.csv", "line": 9, "label": "1", "text": None, "detail": "nothing left"}],
                "duplicate": [{"file": "a.csv", "line": 7, "label": "1", "text": "<img src=x>", "detail": "repeats a.csv:3"}],
            },
            "rows_changed_by_cleaning": 5,
            "n_files": 2,
            "files": [{"name": f"reviews-{i}.csv", "format": "csv", "encoding": "utf-8", "rows": rows} for i in range(2)],
        },
    )
    names = ("train", "validation", "test", "unused")
    counts = dict(zip(names, (*sizes, rows - sum(sizes)), strict=True))
    _json(
        root / paths.SPLIT_REPORT,
        {
            "sizes": counts,
            "classes": {name: {side: n // n_classes for side, n in counts.items()} for name in NAMES[n_classes]},
            "warnings": ["the validation side has 30 rows, not 40"],
        },
    )
    validation = [
        {"step": 9, "epoch": 1, "loss": 0.5, "accuracy": 0.8, "macro_f1": 0.79},
        {"step": 18, "epoch": 2, "loss": 0.4, "accuracy": 0.9, "macro_f1": 0.89},
    ]
    _json(root / paths.TRAIN_REPORT, {"best_step": 18, "best_epoch": 2, "validation": validation, "steps": 18})
    (root / paths.LOSS_CURVE).parent.mkdir(parents=True)
    curve = [f"{s},training,{0.7 * 0.95**s:.4f}" for s in range(1, 19)] + ["9,validation,0.5", "18,validation,0.4"]
    (root / paths.LOSS_CURVE).write_text("step,split,loss\n" + "\n".join(curve) + "\n")


def _model(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(b"weights")
    _json(
        directory / "dagobert.json",
        {
            "format": 1,
            "base_model": {"name_or_path": "tiny", "sha256": "0" * 64},
            "data": {"data/tokens": "1" * 64},
            "fingerprint": {"threads": 2, "libraries": {"torch": "2.13.0"}},
        },
    )


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
