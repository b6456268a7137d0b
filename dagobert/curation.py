"""Records → clean rows and quarantined rows, in two passes and with flat memory.

First pass: clean and check batch by batch, in threads, into a draft on disk; of each row 13 bytes stay in memory (a sketch of
its text, its label, a verdict). Then the rows whose sketch is shared get their full keys, and those that repeat each other are
found. Second pass: the draft is sorted into its two files. The result does not depend on the number of threads, nor on how the
records were batched.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dagobert.cleaning import CleanRecipe, clean_texts
from dagobert.neardup import NearDuplicates
from dagobert.parquet import RowWriter
from dagobert.quality import GROUP_REASONS, Contract, Repeats, pair_problems, repeats, row_problems
from dagobert.records.batches import ITEM
from dagobert.textkeys import Keys, exact_keys, normalized_keys, sketch_keys

CLEAN_SCHEMA = pa.schema(
    [
        ("row_id", pa.int64()),
        ("text", pa.string()),
        ("label", pa.string()),
        ("source_file", pa.string()),
        ("source_line", pa.int64()),
    ]
)
QUARANTINE_SCHEMA = pa.schema(
    [
        ("row_id", pa.int64()),
        ("source_file", pa.string()),
        ("source_line", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("text", pa.string()),
        ("label", pa.string()),
    ]
)
_THREADS = max(2, min(8, os.cpu_count() or 1))


@dataclass
class Outcome:
    """What became of the records."""

    rows_read: int = 0
    rows_not_selected: int = 0
    rows_out: int = 0
    rows_quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    lengths: list[npt.NDArray[np.int32]] = field(default_factory=list)  # characters of the rows that stay
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    changed: int = 0  # rows whose text is not as it was read


@dataclass(frozen=True)
class Selection:
    """Which records are meant at all: those whose columns hold these values. And which further columns are kept."""

    where: Mapping[str, str]
    text_pair: str | None = None
    extra: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns to read beside text and label."""
        pair = () if self.text_pair is None else (self.text_pair,)
        return tuple(dict.fromkeys([*self.where, *pair, *self.extra]))

    @property
    def kept(self) -> list[str]:
        """Columns of the clean file beside the fixed ones."""
        return [*([] if self.text_pair is None else ["text_pair"]), *self.extra]

    def rows(self, batch: pa.RecordBatch) -> pa.Array:
        """True for the selected records. One that could not be read counts as selected: nobody knows what it held."""
        wanted = pa.repeat(pa.scalar(True), batch.num_rows)
        for column, value in self.where.items():
            wanted = pc.and_(wanted, pc.fill_null(pc.equal(batch.column(f"extra:{column}"), value), False))
        return pc.or_(wanted, pc.is_valid(batch.column("problem")))


@dataclass(frozen=True)
class _Examined:
    draft: pa.RecordBatch
    not_selected: int
    sketch: Keys


def curate(
    batches: Iterator[pa.RecordBatch],
    selection: Selection,
    recipe: CleanRecipe,
    contract: Contract,
    *,
    clean: Path,
    quarantine: Path,
    draft: Path,
    on_rows: Callable[[int], None] = lambda n: None,
) -> Outcome:
    """Sort records into `clean` and `quarantine`; `draft` is used in between and removed.

    Raises:
        RecordError: from the reader behind `batches`.
    """
    outcome = Outcome()
    try:
        keys = _first_pass(batches, selection, recipe, contract, draft, outcome, on_rows)
        exact, normalized, shared = _full_keys(draft, keys, selection)
        found = repeats(exact, normalized if contract.normalizes else None, keys.labels, keys.usable & shared, contract)
        if contract.near_duplicates != "keep":
            _near_pass(draft, found, keys, contract)
        schema = clean_schema(selection, keys.lists)
        _second_pass(draft, found, schema, {"clean": recipe.to_json()}, clean, quarantine, outcome)
    finally:
        draft.unlink(missing_ok=True)
    assert outcome.rows_read == outcome.rows_not_selected + outcome.rows_out + outcome.rows_quarantined
    return outcome


def clean_label(labels: pa.Array) -> pa.Array:
    """Labels as they are compared: NFC, without white space around them."""
    labels = pc.utf8_trim_whitespace(pc.utf8_normalize(labels, "NFC"))
    if not pc.any(pc.starts_with(labels, ITEM)).as_py():
        return labels
    return pc.replace_substring_regex(labels, rf"\s*{ITEM}\s*", ITEM)


def _items(label: str | None) -> list[str]:
    """The labels of a row: one, or the items of a list."""
    if label is None:
        return []
    return [item for item in label[1:].split(ITEM) if item] if label.startswith(ITEM) else [label]


def _shown_label(labels: pa.Array) -> pa.Array:
    return pc.replace_substring(pc.utf8_ltrim(labels, ITEM), ITEM, "; ")


def _as(schema: pa.Schema, draft: pa.RecordBatch) -> pa.RecordBatch:
    """The columns of the clean file, labels as lists where it has lists."""
    columns = [draft.column(name) for name in schema.names]
    at = schema.get_field_index("label")
    if pa.types.is_list(schema.field(at).type):
        columns[at] = pa.array([_items(label) for label in columns[at].to_pylist()], schema.field(at).type)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def examine(batch: pa.RecordBatch, selection: Selection, recipe: CleanRecipe, contract: Contract) -> _Examined:
    """Clean and check one batch. Pure."""
    n = batch.num_rows
    wanted = selection.rows(batch)
    if not pc.all(wanted).as_py():
        batch = batch.filter(wanted)
    raw, problem = batch.column("text"), batch.column("problem")
    unreadable = pc.is_valid(problem)
    readable = pc.if_else(unreadable, pa.scalar(None, pa.string()), raw) if pc.any(unreadable).as_py() else raw
    text = clean_texts(readable, recipe)
    label = clean_label(batch.column("label"))
    reason, detail = row_problems(raw, text, label, problem, batch.column("detail"), contract)
    pair = None if selection.text_pair is None else clean_texts(batch.column(f"extra:{selection.text_pair}"), recipe)
    if pair is not None:
        reason, detail = pair_problems(pair, reason, detail)
    same = pc.fill_null(pc.equal(raw, text), False)
    # The raw text is kept only where it says something else: most of the draft is written once, not twice.
    kept = pc.if_else(pc.and_(same, pc.is_null(reason)), pa.scalar(None, pa.string()), raw)
    columns = [
        batch.column("row_id"),
        text,
        label,
        batch.column("source_file"),
        batch.column("source_line"),
        reason,
        detail,
        kept,
        *([] if pair is None else [pair]),
        *(batch.column(f"extra:{name}") for name in selection.extra),
    ]
    draft = pa.RecordBatch.from_arrays(columns, schema=_draft_schema(selection))
    return _Examined(draft, n - batch.num_rows, sketch_keys(text))


def _pair_keys(of: Callable[[pa.Array], Keys], text: pa.Array, pair: pa.Array | None) -> Keys:
    """Keys of a text, or of two as one; the order of the two matters."""
    return of(text) if pair is None else of(text) * np.uint64(3) ^ of(pair)


def _draft_schema(selection: Selection) -> pa.Schema:
    kinds = [(name, pa.string()) for name in ("reason", "detail", "raw", *selection.kept)]
    return pa.schema([*CLEAN_SCHEMA, *kinds])


@dataclass(frozen=True)
class _Keys:
    sketch: Keys
    labels: npt.NDArray[np.int64]
    usable: npt.NDArray[np.bool_]
    lists: bool  # whether labels are lists


def _first_pass(
    batches: Iterator[pa.RecordBatch],
    selection: Selection,
    recipe: CleanRecipe,
    contract: Contract,
    draft: Path,
    outcome: Outcome,
    on_rows: Callable[[int], None],
) -> _Keys:
    sketch, labels, usable = [], [], []
    codes: dict[tuple[str, ...], int] = {}
    lists = False
    with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_file(sink, _draft_schema(selection)) as writer:

        def work(batch: pa.RecordBatch) -> _Examined:
            return examine(batch, selection, recipe, contract)

        for done in _in_order(work, batches):
            rows = done.draft.num_rows
            outcome.rows_read += rows + done.not_selected
            outcome.rows_not_selected += done.not_selected
            if rows:
                writer.write_batch(done.draft)
                sketch.append(done.sketch)
                coded = done.draft.column("label").dictionary_encode()
                values = coded.dictionary.to_pylist()
                lists = lists or any(value.startswith(ITEM) for value in values)
                ids = [codes.setdefault(tuple(sorted(_items(value))), len(codes)) for value in values]
                at = pc.fill_null(coded.indices, 0).to_numpy(zero_copy_only=False)
                labels.append(np.array(ids or [0], np.int32)[at])
                usable.append(pc.is_null(done.draft.column("reason")).to_numpy(zero_copy_only=False))
            on_rows(rows + done.not_selected)

    def joined(parts: list[Any], kind: Any) -> Any:
        return np.concatenate(parts) if parts else np.zeros(0, kind)

    return _Keys(
        joined(sketch, np.uint64),
        joined(labels, np.int32),
        joined(usable, bool),
        lists,
    )


def _full_keys(draft: Path, keys: _Keys, selection: Selection) -> tuple[Keys, Keys, npt.NDArray[np.bool_]]:
    """Exact and normalised keys of the usable rows that share their sketch with another, and which rows these are."""
    n = len(keys.sketch)
    shared = np.zeros(n, bool)
    at = np.flatnonzero(keys.usable)
    order = at[np.argsort(keys.sketch[at], kind="stable")]
    same = keys.sketch[order[1:]] == keys.sketch[order[:-1]]
    shared[order[1:][same]] = shared[order[:-1][same]] = True
    exact, normalized = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
    columns = ["text", *(["text_pair"] if selection.text_pair is not None else [])]
    start = 0
    for batch in _batches(draft, columns) if shared.any() else []:
        rows = np.flatnonzero(shared[start : start + batch.num_rows])
        if len(rows):
            picked = batch.take(pa.array(rows)).columns
            pair = picked[1] if len(picked) > 1 else None
            exact[start + rows] = _pair_keys(exact_keys, picked[0], pair)
            normalized[start + rows] = _pair_keys(normalized_keys, picked[0], pair)
        start += batch.num_rows
    return exact, normalized, shared


def _near_pass(draft: Path, found: Repeats, keys: _Keys, contract: Contract) -> None:
    """Mark near duplicates among the rows that no other rule has set aside."""
    near = NearDuplicates(contract.near_duplicate_threshold)
    code = GROUP_REASONS.index("near_duplicate")
    alive = keys.usable & (found.reason < 0)
    row = 0
    for batch in _batches(draft, ["text"]):
        for text in batch.column("text").to_pylist():
            first = near.find(row, text, int(keys.labels[row])) if alive[row] else None
            if first is not None:
                found.reason[row], found.first[row] = code, first
                if contract.near_duplicates == "quarantine" and found.reason[first] < 0:
                    found.reason[first], found.first[first] = code, row
            row += 1


def _batches(draft: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The draft's batches with a few of its columns; the others are not read."""
    with pa.OSFile(str(draft)) as source, pa.ipc.open_file(source) as reader:
        options = pa.ipc.IpcReadOptions(included_fields=[reader.schema.get_field_index(name) for name in columns])
    with pa.OSFile(str(draft)) as source, pa.ipc.open_file(source, options=options) as reader:
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i).select(columns)


def clean_schema(selection: Selection, lists: bool) -> pa.Schema:
    """Schema of the clean file; `lists`: a row has several labels."""
    label = pa.field("label", pa.list_(pa.string()) if lists else pa.string())
    fixed = [label if item.name == "label" else item for item in CLEAN_SCHEMA]
    return pa.schema([*fixed, *((name, pa.string()) for name in selection.kept)])


def _second_pass(
    draft: Path,
    found: Repeats,
    schema: pa.Schema,
    metadata: dict[str, Any],
    clean: Path,
    quarantine: Path,
    outcome: Outcome,
) -> None:
    names = _Places(found, draft)
    start = 0
    with (
        pa.OSFile(str(draft)) as source,
        pa.ipc.open_file(source) as reader,
        RowWriter(clean, schema, metadata, dictionary=("label", "source_file")) as out,
        RowWriter(quarantine, QUARANTINE_SCHEMA, dictionary=("label", "source_file", "reason")) as aside,
    ):
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            rows = np.arange(start, start + batch.num_rows)
            start += batch.num_rows
            reason, detail = names.verdicts(batch, rows)
            good = pc.is_null(reason)
            kept = batch if pc.all(good).as_py() else batch.filter(good)
            out.write(_as(schema, kept))
            _count_kept(kept, outcome)
            if kept.num_rows < batch.num_rows:
                bad = pc.invert(good)
                raw = pc.coalesce(batch.column("raw"), batch.column("text"))
                place = batch.select(["row_id", "source_file", "source_line"]).columns
                columns = [*place, reason, detail, raw, _shown_label(batch.column("label"))]
                rejected = pa.RecordBatch.from_arrays(columns, schema=QUARANTINE_SCHEMA).filter(bad)
                aside.write(rejected)
                _count_rejected(rejected, outcome)
    outcome.rows_out, outcome.rows_quarantined = out.rows, aside.rows


class _Places:
    """Says which row a repeated one repeats, by file and line."""

    def __init__(self, found: Repeats, draft: Path) -> None:
        self._found = found
        self._names: dict[int, str] = {}
        wanted = np.unique(found.first[found.first >= 0])
        start = 0
        for batch in _batches(draft, ["source_file", "source_line"]) if len(wanted) else []:
            low, high = np.searchsorted(wanted, [start, start + batch.num_rows])
            files, lines = (column.to_pylist() for column in batch.take(pa.array(wanted[low:high] - start)).columns)
            for row, file, line in zip(wanted[low:high].tolist(), files, lines, strict=True):
                self._names[row] = f"{file}:{line}"
            start += batch.num_rows

    def verdicts(self, batch: pa.RecordBatch, rows: npt.NDArray[np.int64]) -> tuple[pa.Array, pa.Array]:
        """Reason and detail of every row of the batch, null for a good one."""
        reason, detail = batch.column("reason"), batch.column("detail")
        codes = self._found.reason[rows]
        hit = codes >= 0
        if not hit.any():
            return reason, detail
        names = pa.array([None if code < 0 else GROUP_REASONS[code] for code in codes.tolist()], pa.string())
        words = [
            None if code < 0 else self._words(GROUP_REASONS[code], first)
            for code, first in zip(codes.tolist(), self._found.first[rows].tolist(), strict=True)
        ]
        mask = pa.array(hit)
        return pc.if_else(mask, names, reason), pc.if_else(mask, pa.array(words, pa.string()), detail)

    def _words(self, reason: str, first: int) -> str:
        place = self._names[first]
        words = {"conflicting_labels": "another label at", "near_duplicate": "almost repeats"}
        return f"{words.get(reason, 'repeats')} {place}"


def _count_kept(kept: pa.RecordBatch, outcome: Outcome) -> None:
    for found in pc.value_counts(kept.column("label")).to_pylist():
        for item in _items(found["values"]):
            outcome.labels[item] += found["counts"]
    outcome.lengths.append(pc.utf8_length(kept.column("text")).to_numpy(zero_copy_only=False).astype(np.int32))
    outcome.changed += kept.num_rows - kept.column("raw").null_count


def _count_rejected(rejected: pa.RecordBatch, outcome: Outcome) -> None:
    for item in pc.value_counts(rejected.column("reason")).to_pylist():
        reason = item["values"]
        outcome.reasons[reason] += item["counts"]
        shown = outcome.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            of = rejected.filter(pc.equal(rejected.column("reason"), reason)).slice(0, EXAMPLES - len(shown))
            shown.extend(_example(row) for row in of.to_pylist())


EXAMPLES = 20
_SHOWN = 200  # characters of a text shown in an example


def _example(row: dict[str, Any]) -> dict[str, Any]:
    text = row["text"]
    if text is not None and len(text) > _SHOWN:
        text = text[:_SHOWN] + "…"
    return {
        "file": row["source_file"],
        "line": row["source_line"],
        "label": row["label"],
        "text": text,
        "detail": row["detail"],
    }


def _in_order(work: Callable[[pa.RecordBatch], _Examined], batches: Iterator[pa.RecordBatch]) -> Iterator[_Examined]:
    """Map in threads, results in order, never more than two batches a thread under way."""
    waiting: deque[Future[_Examined]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in batches:
            waiting.append(pool.submit(work, batch))
            if len(waiting) > 2 * _THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
