"""Stage `split`: clean rows and their labels to sides, with the leakage gate at the end. Texts are streamed; only keys are
kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dagobert import events, files, splitting
from dagobert.errors import SplitError
from dagobert.labels import LabelMap, class_weights
from dagobert.neardup import AcrossSides
from dagobert.params import Params
from dagobert.params.split import SplitParams
from dagobert.parquet import stream
from dagobert.splitting import Index, IntArray, Side
from dagobert.stages import paths
from dagobert.textkeys import Keys, exact_keys, normalized_keys

OUTPUTS: tuple[Path, ...] = (paths.SPLITS, paths.SPLIT_REPORT)
_BATCH = 4096  # rows whose text is in memory
_ROWS = 65_536  # rows of a row group of splits.parquet
_PAIRS = 100  # near duplicates shown in the report, the closest first

NearPair = tuple[float, int, int]  # minus the share of word triples in common (so that the closest sort first), row, later row


def inputs(params: Params) -> list[Path]:
    """Files and directories the stage reads."""
    return [paths.CLEAN, paths.LABELS, paths.LABEL_MAP]


def run(params: Params) -> None:
    """Read texts and labels, write the side of each row."""
    ours = params.split
    found = LabelMap.from_json(files.read_json(paths.LABEL_MAP))
    keys = text_keys(paths.CLEAN)
    groups = None if ours.group is None else group_keys(paths.CLEAN, ours.group)
    units, side, near = divide(ours, splitting.make_units(keys, groups), strata(paths.LABELS, found), paths.CLEAN)
    _gate(side, keys, paths.CLEAN)
    warnings = _warnings(ours, side, found, paths.LABELS)
    if near is not None and near["across_sides"]:
        warnings.append(
            f"{near['across_sides']:,} pairs of rows on two sides are nearly the same text, such as {near['examples'][0]['a']} "
            f"and {near['examples'][0]['b']}: see {paths.SPLIT_REPORT}, and clean.near_duplicates to set them aside"
        )
    for warning in warnings:
        events.warn(warning)
    write(paths.CLEAN, side, paths.SPLITS)
    report = describe(ours, side, found, paths.LABELS, units, warnings) | {"near_duplicates": near}
    files.write_json(paths.SPLIT_REPORT, report)
    events.say(", ".join(f"{name} {n:,}" for name, n in report["sizes"].items()))


def divide(
    ours: SplitParams, units: splitting.Units, labels: Index, clean: Path
) -> tuple[splitting.Units, Side, dict[str, Any] | None]:
    """Units, the side of each row (N,), and what there is to say of near duplicates.

    Near duplicates are looked for among the rows that the draw puts on two sides, joined into one unit, and the draw is made
    again, until none is found: comparing all rows with all would take memory for each. k-fold does, because the same
    rows must belong together in every fold. Strategy `hash` promises that a row never changes side and `given` is the
    user's word: there, near duplicates are reported and stay where they are.
    """
    if ours.near_duplicates is None:
        return units, choose(ours, units, labels, clean), None
    together: list[NearPair] = []
    if ours.strategy == "kfold":
        together = near_pairs(clean, None, ours.near_duplicates)
        units = splitting.join_units(units, [pair for _, *pair in together])
        side = choose(ours, units, labels, clean)
        return units, side, describe_near(clean, side, ours.near_duplicates, together, [])
    side = choose(ours, units, labels, clean)
    found = near_pairs(clean, side, ours.near_duplicates)
    while found and ours.strategy not in ("given", "hash"):
        together += found
        units = splitting.join_units(units, [pair for _, *pair in found])
        side = choose(ours, units, labels, clean)
        found = near_pairs(clean, side, ours.near_duplicates)
    return units, side, describe_near(clean, side, ours.near_duplicates, together, found)


def choose(ours: SplitParams, units: splitting.Units, labels: Index, clean: Path) -> Side:
    """The side of each row, shape (N,).

    Raises:
        SplitError: too few rows, or a strategy that lacks its column.
    """
    n_rows = len(labels)
    if ours.strategy == "given":
        side = splitting.given(_column(clean, ours, "given").cast(pa.string()).to_pylist())
    elif ours.strategy == "hash":
        side = splitting.by_hash(units, ours.train_size, ours.validation_size, ours.test_size, ours.seed)
    elif ours.strategy == "kfold":
        side = splitting.k_fold(units, labels, ours.folds, ours.fold, ours.train_size, ours.validation_size, ours.seed)
    else:
        sizes = splitting.wanted_sizes(n_rows, ours.train_size, ours.validation_size, ours.test_size)
        if ours.strategy == "stratified":
            side = splitting.stratified(units, labels, sizes, ours.seed)
        elif ours.strategy == "random":
            side = splitting.shuffled(units, sizes, ours.seed)
        elif ours.strategy == "ordered":
            side = splitting.by_position(units, np.arange(n_rows, dtype=np.int32), sizes)
        else:
            side = splitting.by_position(units, _ranks(_column(clean, ours, "time"), ours.column), sizes)
    for code, name in enumerate(splitting.SIDES[:3]):
        if not (side == code).any():
            raise SplitError(
                f"the {name} side got no row: {n_rows:,} rows in {len(units.size):,} groups of equal or nearly equal text"
                f"{'' if ours.group is None else f' or {ours.group}'} cannot be divided so. Change the split sizes, or add "
                f"data."
            )
    return side


def text_keys(clean: Path) -> Keys:
    """Keys of the normalised texts, shape (N,); a pair of texts counts as one."""
    n_rows = pq.read_metadata(clean).num_rows
    keys = np.empty(n_rows, np.uint64)
    done = 0
    with events.progress("comparing texts", n_rows) as bar:
        for batch in stream(clean, ("text", "text_pair"), _BATCH):
            found = normalized_keys(batch["text"])
            if "text_pair" in batch.schema.names:
                found = splitting.mixed(found, 0) ^ normalized_keys(batch["text_pair"])
            keys[done : done + len(found)] = found
            done += len(found)
            bar.update(len(found))
    return keys


def group_keys(clean: Path, column: str) -> Keys:
    """Keys of a group column, shape (N,). A row without a group is a group of its own."""
    values = _read(clean, column, "split.group")
    text = pc.fill_null(values.cast(pa.string()), "")
    keys = exact_keys(text)
    alone = np.flatnonzero(pc.equal(text, "").to_numpy())
    rows = pq.read_table(clean, columns=["row_id"])["row_id"].to_numpy()
    keys = keys.copy()
    keys[alone] = splitting.mixed(rows[alone].astype(np.uint64), 1)
    return keys


def strata(labels: Path, found: LabelMap) -> Index:
    """What stratified drawing balances: the class of each row, or with several labels a row the rarest of them. Shape (N,)."""
    if not found.multi:
        ids: Index = pq.read_table(labels, columns=["label_id"])["label_id"].to_numpy()
        return ids
    lists = pq.read_table(labels, columns=["label_ids"])["label_ids"].combine_chunks()
    flat, parent = pc.list_flatten(lists).to_numpy(), pc.list_parent_indices(lists).to_numpy()
    counts = np.bincount(flat, minlength=len(found.classes))
    stratum = np.full(len(lists), len(found.classes), dtype=np.int32)  # rows without any label
    for c in np.argsort(-counts, kind="stable").tolist():
        stratum[parent[flat == c]] = c
    return stratum


def label_counts(labels: Path, found: LabelMap, chosen: Any) -> list[int]:
    """Rows of each class among the chosen ones."""
    if found.multi:
        table = pq.read_table(labels, columns=["label_ids"]).filter(pa.array(chosen))
        ids = pc.list_flatten(table["label_ids"].combine_chunks()).to_numpy()
    else:
        ids = pq.read_table(labels, columns=["label_id"])["label_id"].to_numpy()[chosen]
    return [int(n) for n in np.bincount(ids, minlength=len(found.classes))]


def write(clean: Path, side: Side, out: Path) -> None:
    """Write splits.parquet: every row of clean.parquet in its order."""
    names = pa.array(splitting.SIDES)
    schema = pa.schema([("row_id", pa.int64()), ("split", pa.string())])
    with files.atomic_file(out) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        at = 0
        for batch in stream(clean, ("row_id",), _ROWS):
            chosen = names.take(pa.array(side[at : at + batch.num_rows]))
            writer.write_table(pa.table([batch["row_id"], chosen], schema=schema))
            at += batch.num_rows


def describe(
    ours: SplitParams, side: Side, found: LabelMap, labels: Path, units: splitting.Units, warnings: list[str]
) -> dict[str, Any]:
    """What `reports/split.json` holds."""
    counts = {name: label_counts(labels, found, side == code) for code, name in enumerate(splitting.SIDES)}
    return {
        "strategy": ours.strategy,
        "seed": ours.seed,
        "rows": len(side),
        "sizes": {name: int((side == code).sum()) for code, name in enumerate(splitting.SIDES)},
        "classes": {said: {name: counts[name][c] for name in splitting.SIDES} for c, said in enumerate(found.names)},
        "class_weights": dict(zip(found.names, class_weights(counts["train"]), strict=True)),
        "rows_kept_together": int(len(side) - len(units.size)),
        "warnings": warnings,
    }


def near_pairs(clean: Path, side: Side | None, threshold: float) -> list[NearPair]:
    """Pairs of rows on two sides whose texts are nearly the same, the closest first. Shape: side (N,); None: all rows are
    compared with all."""
    finder = AcrossSides(threshold)
    pairs: list[NearPair] = []
    if side is None:
        apart = np.arange(pq.read_metadata(clean).num_rows)  # each row a side of its own
        used = first = np.ones(len(apart), np.bool_)
    else:
        apart, used = side, side != splitting.UNUSED
        first = used & (side != splitting.TRAIN)
    with events.progress("looking for near duplicates", int(used.sum())) as bar:
        # The small sides are remembered, then the training rows come to meet them.
        for wanted, remember in ((first, True), (used & ~first, False)):
            at = 0
            for batch in stream(clean, ("text", "text_pair"), _BATCH) if wanted.any() else []:
                chosen = np.flatnonzero(wanted[at : at + batch.num_rows])
                columns = batch.take(pa.array(chosen)).to_pydict().values()
                for row, *texts in zip((chosen + at).tolist(), *columns, strict=True):
                    found = finder.find(row, "\n".join(text or "" for text in texts), int(apart[row]), remember=remember)
                    pairs += [(-share, other, row) for other, share in found]
                at += batch.num_rows
                bar.update(len(chosen))
    return sorted(pairs)


def describe_near(
    clean: Path, side: Side, threshold: float, together: list[NearPair], across: list[NearPair]
) -> dict[str, Any]:
    """Near duplicates as `reports/split.json` tells of them: how many pairs, and the closest by name, those on two sides
    first."""
    closest = (across + together)[:_PAIRS]
    where = places(clean, sorted({row for _, *two in closest for row in two}))
    examples = [
        {
            "a": where[a],
            "a_side": splitting.SIDES[side[a]],
            "b": where[b],
            "b_side": splitting.SIDES[side[b]],
            "share": round(-share, 3),
        }
        for share, a, b in closest
    ]
    return {"threshold": threshold, "kept_together": len(together), "across_sides": len(across), "examples": examples}


def places(clean: Path, rows: list[int]) -> dict[int, str]:
    """File and line of the rows at these positions, ascending."""
    found: dict[int, str] = {}
    wanted, at = np.array(rows, dtype=np.int64), 0
    for batch in stream(clean, ("row_id", "source_file", "source_line"), _ROWS):
        here = wanted[(wanted >= at) & (wanted < at + batch.num_rows)]
        for row, line in zip(here.tolist(), batch.take(pa.array(here - at)).to_pylist(), strict=True):
            named = "source_file" in line
            found[row] = f"{line['source_file']}:{line['source_line']}" if named else f"row_id {line['row_id']}"
        at += batch.num_rows
    return found


def _warnings(ours: SplitParams, side: Side, found: LabelMap, labels: Path) -> list[str]:
    counts = [label_counts(labels, found, side == code) for code in range(len(splitting.SIDES))]
    warnings = splitting.missing_classes(counts, found.names)
    if warnings and ours.strategy == "ordered":
        warnings.append("split.strategy is ordered and the file seems to be sorted by label: stratified or random would mix it")
    if ours.strategy in ("stratified", "random", "ordered", "time"):
        wanted = splitting.wanted_sizes(len(side), ours.train_size, ours.validation_size, ours.test_size)
        for code, want in enumerate((wanted.train, wanted.validation, wanted.test)):
            got = int((side == code).sum())
            if want is not None and got != want:
                warnings.append(
                    f"the {splitting.SIDES[code]} side has {got:,} rows, not {want:,}: rows that belong together are not "
                    f"divided"
                )
    return warnings


def _gate(side: Side, keys: Keys, clean: Path) -> None:
    leaks = splitting.leaks(side, keys)
    if leaks:
        raise splitting.leakage(side, leaks, places(clean, sorted(leaks[0])))


def _column(clean: Path, ours: SplitParams, strategy: str) -> pa.ChunkedArray:
    if ours.column is None:
        raise SplitError(f"split.strategy is {strategy}, which needs split.column: the name of the column to go by.")
    return _read(clean, ours.column, "split.column")


def _read(clean: Path, column: str, parameter: str) -> pa.ChunkedArray:
    names = pq.read_schema(clean).names
    if column not in names:
        raise SplitError(
            f"{parameter} is {column!r}, which {clean} does not have; it has {', '.join(names)}. Name the column under "
            f"data.extra in params.yaml, so that it is kept."
        )
    return pq.read_table(clean, columns=[column])[column]


def _ranks(values: pa.ChunkedArray, column: str | None) -> IntArray:
    """Rank of each time; equal times have equal ranks. Times are numbers or ISO 8601."""
    missing = pc.sum(pc.or_kleene(pc.is_null(values), pc.equal(values.cast(pa.string()), ""))).as_py() or 0
    if missing:
        raise SplitError(f"split.column {column!r} has {missing:,} rows without a time. Fix them, or quarantine them in clean.")
    for kind in (pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            times = values.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
        ranks: IntArray = pc.rank(times, sort_keys="ascending", tiebreaker="dense").to_numpy().astype(np.int64)
        return ranks
    raise SplitError(
        f"split.column {column!r} holds no times that can be ordered, {values[0].as_py()!r} first. Every row needs a "
        f"number, or every row a date such as 2024-05-31 or 2024-05-31T23:59:00."
    )
