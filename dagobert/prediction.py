"""Score a file with a fine-tuned model: one row out for each row in, in order, with flat memory.

Text takes the way it took in training: the cleaning recipe, truncation and windows are read from the model's `dagobert.json`.
Rows go through in windows of `WINDOW` rows, inside which the scorer sorts them by length. A row whose text is missing,
unreadable or empty after cleaning gets an empty label and scores instead of a guess.

Shapes: N rows, C classes.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dagobert import events, files
from dagobert.cleaning import CleanRecipe, clean_texts
from dagobert.errors import ModelError, RecordError
from dagobert.labels import LabelMap
from dagobert.records import Columns, Reading, find, read
from dagobert.shards import mean_by_document
from dagobert.tokens import Tokenization

if TYPE_CHECKING:
    from dagobert.scoring import Scorer

WINDOW = 16_384  # rows scored at a time: enough to sort by length, 64 MB of tokens at 512
THRESHOLD = 0.5  # a class with at least this probability is named, where a row may have several

Format = Literal["csv", "jsonl", "parquet"]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Predictor:
    """A model with everything that stands between a raw text and its probabilities."""

    labels: LabelMap
    recipe: CleanRecipe
    tokenization: Tokenization
    scorer: Scorer

    @classmethod
    def load(cls, model: Path, device: str = "auto", precision: str = "auto") -> Predictor:
        """Load a model that Dagobert trained.

        Raises:
            ModelError: it is not there, damaged, or was not made by Dagobert.
        """
        about = _about(model)
        from dagobert.scoring import Scorer

        how = about["tokenize"]
        return cls(
            labels=LabelMap.from_json(about["labels"]),
            recipe=CleanRecipe.from_json(about["clean"]),
            tokenization=Tokenization(model, how["max_length"], how["truncation"], how.get("stride")),
            scorer=Scorer.load(model, device=device, precision=precision),
        )

    def probabilities(self, texts: pa.Array | pa.ChunkedArray, second: pa.Array | pa.ChunkedArray | None = None) -> Floats:
        """Texts (N,) as they stand in the file to probabilities (N, C); a row of NaN where there is no text to judge."""
        from dagobert.heads import classification

        clean = clean_texts(_flat(texts), self.recipe)
        usable = pc.fill_null(pc.greater(pc.utf8_length(clean), 0), False)
        pair = None if second is None else pc.fill_null(clean_texts(_flat(second), self.recipe), "").filter(usable)
        found = np.full((len(clean), len(self.labels.names)), np.nan, dtype=np.float32)
        rows = np.flatnonzero(usable.to_numpy(zero_copy_only=False))
        if len(rows):
            store = self.tokenization.store(clean.filter(usable), pair)
            logits = self.scorer.logits(store)
            # A document's prediction is the mean of its windows' logits, as in training's validation and in evaluate.
            found[rows] = classification.probabilities(mean_by_document(logits, store.row_ids), self.labels.problem_type)
        return found

    def answers(self, probabilities: Floats) -> tuple[list[Any], list[float | None]]:
        """Label and score of each row: (N, C) to names (a list of names where a row may have several) and (N,)."""
        names, scores = [], []
        best = np.argmax(np.nan_to_num(probabilities, nan=-1.0), axis=1)
        for row, i in zip(probabilities, best.tolist(), strict=True):
            blank = bool(np.isnan(row[0]))
            several = [name for name, p in zip(self.labels.names, row, strict=True) if p >= THRESHOLD]
            names.append(None if blank else several if self.labels.multi else self.labels.names[i])
            scores.append(None if blank else float(row[i]))
        return names, scores


def predict_file(
    predictor: Predictor,
    source: str,
    output: str,
    columns: Columns,
    reading: Reading,
    output_format: Format,
    second: str | None = None,
) -> tuple[int, int]:
    """Score every row of `source` and write the answers to `output` (a path, or `-` for standard output).

    Returns:
        rows written, and how many of them had no text to judge.
    Raises:
        RecordError: the file cannot be read or lacks a column.
        StorageError: the output cannot be written; what stood there before is unchanged.
    """
    from dagobert.determinism import give_memory_back  # brings torch along

    rows = blank = 0
    kept = [name for name in columns.extra if name != second]
    with (
        _opened(output) as target,
        _writer(output_format, target, predictor.labels, kept) as write,
        events.progress("scoring", None) as bar,
    ):
        for window in windows(read(find(source, reading.format), columns, reading), WINDOW):
            found = predictor.probabilities(_readable(window), None if second is None else window[extra(second)])
            labels, scores = predictor.answers(found)
            write(rows, labels, scores, found, [window[extra(name)].to_pylist() for name in kept])
            rows += len(labels)
            blank += scores.count(None)
            bar.update(len(labels))
            give_memory_back()
    return rows, blank


def windows(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Batches joined into tables of at least `size` rows, the last one as it comes."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(part.num_rows for part in held) >= size:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def extra(name: str) -> str:
    """What the reader calls a further column of the file."""
    return f"extra:{name}"


def _readable(window: pa.Table) -> pa.ChunkedArray:
    """The texts, null where the record could not be read."""
    return pc.if_else(pc.is_null(window["problem"]), window["text"], pa.scalar(None, window["text"].type))


def _flat(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts


def _about(model: Path) -> dict[str, Any]:
    path = model / "dagobert.json"
    if not model.is_dir():
        raise ModelError(f"{model}: no such directory. Train a model first: dvc repro.")
    if not path.is_file():
        raise ModelError(
            f"{model}: holds no dagobert.json, so Dagobert did not train it and does not know how its text was cleaned. "
            f"Use transformers.pipeline('text-classification', model='{model}') instead."
        )
    try:
        about: dict[str, Any] = files.read_json(path)
        return about
    except ValueError as error:
        raise ModelError(f"{path}: is damaged ({error}). Get it back: dvc checkout.") from None


Write = Callable[[int, Sequence[Any], Sequence[float | None], Floats, Sequence[list[Any]]], None]


@contextmanager
def _opened(output: str) -> Iterator[Path | TextIO]:
    if output == "-":
        yield sys.stdout
    else:
        with files.atomic_file(Path(output)) as temporary:
            yield temporary


@contextmanager
def _writer(kind: Format, target: Path | TextIO, labels: LabelMap, kept: list[str]) -> Iterator[Write]:
    """A function that writes rows: first row number, labels, scores, probabilities, and the kept columns."""
    names = ["row_id", "label", "score", *(f"p_{name}" for name in labels.names)]
    clash = sorted(set(names) & set(kept))
    if clash:
        raise RecordError(f"--keep {clash[0]}: the output has a column of this name already. Rename it in the input.")
    if kind == "parquet":
        if not isinstance(target, Path):
            raise RecordError("parquet cannot be written to standard output. Give a file: -o predictions.parquet.")
        with _parquet(target, names, labels.multi, kept) as write:
            yield write
        return
    stream = target if not isinstance(target, Path) else target.open("w", encoding="utf-8", newline="")
    try:
        yield _csv(stream, names, kept) if kind == "csv" else _jsonl(stream, names, kept)
    finally:
        stream.flush()
        if isinstance(target, Path):
            stream.close()


def _csv(stream: TextIO, names: list[str], kept: list[str]) -> Write:
    table = csv.writer(stream, lineterminator="\n")
    table.writerow([*names, *kept])

    def write(start: int, labels: Any, scores: Any, found: Floats, others: Any) -> None:
        for i, (label, score) in enumerate(zip(labels, scores, strict=True)):
            answer = "; ".join(label) if isinstance(label, list) else label
            numbers = ["" if score is None else f"{value:.7g}" for value in (score if score is not None else 0, *found[i])]
            table.writerow([start + i, guarded(answer), *numbers, *(guarded(column[i]) for column in others)])

    return write


def guarded(cell: Any) -> Any:
    """A cell no spreadsheet takes for a formula: text that starts like one gets an apostrophe in front."""
    return "'" + cell if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _jsonl(stream: TextIO, names: list[str], kept: list[str]) -> Write:
    def write(start: int, labels: Any, scores: Any, found: Floats, others: Any) -> None:
        for i, (label, score) in enumerate(zip(labels, scores, strict=True)):
            numbers = [None] * len(found[i]) if score is None else [float(f"{p:.7g}") for p in found[i]]
            values = [
                start + i,
                label,
                None if score is None else float(f"{score:.7g}"),
                *numbers,
                *(column[i] for column in others),
            ]
            stream.write(json.dumps(dict(zip([*names, *kept], values, strict=True)), ensure_ascii=False, default=str) + "\n")

    return write


@contextmanager
def _parquet(path: Path, names: list[str], multi: bool, kept: list[str]) -> Iterator[Write]:
    import pyarrow.parquet as pq

    string = pa.string()
    types = [pa.int64(), pa.list_(string) if multi else string, *[pa.float32()] * (len(names) - 2), *[string] * len(kept)]
    schema = pa.schema(list(zip([*names, *kept], types, strict=True)))
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def write(start: int, labels: Any, scores: Any, found: Floats, others: Any) -> None:
            numbers = [pa.array(found[:, c], from_pandas=True) for c in range(found.shape[1])]
            texts = [pa.array([None if v is None else str(v) for v in column], string) for column in others]
            ids = pa.array(range(start, start + len(labels)), pa.int64())
            columns = [ids, pa.array(labels, types[1]), pa.array(scores, pa.float32()), *numbers, *texts]
            writer.write_table(pa.table(columns, schema=schema))

        yield write


def output_format(output: str, asked: str | None) -> Format:
    """The format of the answers: as asked, else by the file's name, CSV on standard output.

    Raises:
        RecordError: the name does not tell.
    """
    known: dict[str, Format] = {"csv": "csv", "jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet"}
    kind = asked or ("csv" if output == "-" else Path(output).suffix.removeprefix("."))
    if kind not in known:
        raise RecordError(f"{output}: what format? End the name in .csv, .jsonl or .parquet, or say --output-format.")
    return known[kind]


def standard_input(stream: BinaryIO, directory: Path) -> Path:
    """Spool standard input to a file, so that every format can be read from it."""
    path = directory / "standard-input"
    with path.open("wb") as file:
        while block := stream.read(1 << 20):
            file.write(block)
    return path
