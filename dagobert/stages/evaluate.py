"""Stage `evaluate`: score the test rows, judge the model and its baseline, write figures, predictions, plots and the report.

Only the ids of all rows are held; texts are read for the test rows, and for the training rows while the baseline is fitted.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dagobert import events, files, model_card, parquet, plot_data, report
from dagobert.baseline import Baseline, tfidf_logistic_regression, tfidf_one_vs_rest
from dagobert.evaluation import Evaluation, TestRows, judge, metrics_json
from dagobert.labels import LabelMap
from dagobert.metrics import BOOTSTRAP_SEED
from dagobert.params import Params
from dagobert.report import Story, TokenFigures, percent, span
from dagobert.shards import Manifest, TokenStore, mean_by_document, open_store
from dagobert.stages import paths

if TYPE_CHECKING:
    from dagobert.scoring import Scorer

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

OUTPUTS: tuple[Path, ...] = (paths.METRICS, paths.PREDICTIONS, paths.PLOTS, paths.REPORT, paths.MODEL_CARD)
_BATCH = 8192


class Side(NamedTuple):
    """Rows of one side in file order and their labels. Shapes (n,) and (n, C)."""

    row_ids: IntArray
    answers: BoolArray


class Sides(NamedTuple):
    """The three sides of the split."""

    train: Side
    validation: Side
    test: Side


def inputs(params: Params) -> list[Path]:
    """Files and directories the stage reads."""
    data = [paths.CLEAN, paths.TOKENS, paths.LABELS, paths.LABEL_MAP, paths.SPLITS]
    reports = [paths.DATA_REPORT, paths.SPLIT_REPORT, paths.TRAIN_REPORT, paths.LOSS_CURVE]
    return [paths.MODEL, *data, *reports]


def run(params: Params) -> None:
    """Judge the model in models/finetuned on the test rows."""
    ours = params.evaluate
    label_map = LabelMap.from_json(files.read_json(paths.LABEL_MAP))
    sides = read_sides(paths.SPLITS, paths.LABELS, len(label_map.names))
    store = open_store(paths.TOKENS)
    assert store.manifest is not None
    row_ids, tokens = token_figures(paths.TOKENS, store.manifest)
    rows = read_test_rows(paths.CLEAN, sides.test, row_ids, tokens.lengths)
    scorer = load_scorer(params)
    logits = score(scorer, store, sides.test.row_ids, "scoring test rows")
    validation = None
    if ours.temperature and not label_map.multi:
        known = sides.validation.answers.argmax(axis=1)
        validation = score(scorer, store, sides.validation.row_ids, "scoring validation rows"), known
    evaluation = judge(
        rows,
        logits,
        label_map.names,
        multi=label_map.multi,
        max_length=tokens.max_length,
        level=ours.confidence_level,
        bins=ours.calibration_bins,
        resamples=ours.bootstrap_resamples,
        baseline=fit_baseline(paths.CLEAN, sides.train, rows, label_map.multi, ours.baseline_rows) if ours.baseline else None,
        validation=validation,
    )
    write(evaluation, params, tokens, dict(zip(label_map.classes, label_map.names, strict=True)))
    for line in said(evaluation):
        events.say(line)


def load_scorer(params: Params) -> Scorer:
    """The model, on the device and in the precision it was trained with."""
    from dagobert import determinism
    from dagobert.scoring import Scorer

    determinism.set_up(threads=params.train.threads, seed=params.train.seed, deterministic=params.train.full_determinism)
    return Scorer.load(paths.MODEL, device=params.train.device, precision=params.train.precision)


def read_sides(splits: Path, labels: Path, n_classes: int) -> Sides:
    """Rows of each side with their labels."""
    side = pq.read_table(splits, columns=["row_id", "split"])
    ids, names = side["row_id"].to_numpy(), side["split"].cast(pa.string())
    encoded = pq.read_table(labels)
    known = encoded["row_id"].to_numpy()
    order = np.argsort(known, kind="stable")
    place = order[np.searchsorted(known[order], ids)]
    found = []
    for name in Sides._fields:
        mask = pc.equal(names, name).to_numpy()
        found.append(Side(ids[mask], answers_of(encoded.take(pa.array(place[mask])), n_classes)))
    return Sides(*found)


def answers_of(encoded: pa.Table, n_classes: int) -> BoolArray:
    """label_id (n,) or label_ids (n, list) of labels.parquet as a matrix (n, C)."""
    answers = np.zeros((len(encoded), n_classes), dtype=bool)
    if "label_ids" in encoded.schema.names:
        lists = encoded["label_ids"].combine_chunks()
        answers[pc.list_parent_indices(lists).to_numpy(), pc.list_flatten(lists).to_numpy()] = True
    else:
        answers[np.arange(len(encoded)), encoded["label_id"].to_numpy()] = True
    return answers


def score(scorer: Scorer, store: TokenStore, rows: IntArray, what: str) -> NDArray[np.float32]:
    """Logits of rows, shape (N, C); those of a row in several windows are the windows' mean."""
    selection = store.select(rows)
    with events.progress(what, len(selection.sequences)) as bar:
        logits = scorer.logits(store, selection.sequences, progress=bar)
    return mean_by_document(logits, selection.document)


def read_texts(clean: Path, rows: IntArray, columns: list[str]) -> pa.Table:
    """The given columns of these rows, in file order; the second text of a pair follows the first."""
    wanted = pa.array(rows)
    pieces = []
    for batch in parquet.stream(clean, ["row_id", "text", "text_pair", *columns], _BATCH):
        found = pa.Table.from_batches([batch.filter(pc.is_in(batch["row_id"], value_set=wanted))])
        if "text_pair" in found.schema.names:
            both = pc.binary_join_element_wise(found["text"], pc.fill_null(found["text_pair"], ""), "\n")
            found = found.set_column(found.schema.get_field_index("text"), "text", both)
        pieces.append(found.select(["row_id", "text", *columns]))
    return pa.concat_tables(pieces)


def read_test_rows(clean: Path, side: Side, token_rows: IntArray, tokens: IntArray) -> TestRows:
    """The test rows with their text and length, as they stand in the file."""
    rows = side.row_ids
    table = read_texts(clean, rows, ["source_file", "source_line"])
    assert table["row_id"].to_numpy().tolist() == rows.tolist(), "splits.parquet and clean.parquet differ in rows or order"
    return TestRows(
        row_ids=rows,
        answers=side.answers,
        texts=table["text"].to_pylist(),
        tokens=tokens[np.searchsorted(token_rows, rows)],
        source_files=table["source_file"].cast(pa.string()).to_pylist(),
        source_lines=table["source_line"].to_numpy(),
    )


def fit_baseline(clean: Path, train: Side, rows: TestRows, multi: bool, most: int | None) -> Baseline:
    """TF-IDF + logistic regression, fitted on the training rows' text, or on `most` of them."""
    notes: tuple[str, ...] = ()
    if most is not None and len(train.row_ids) > most:
        notes = (f"on {most:,} of the {len(train.row_ids):,} training rows (evaluate.baseline_rows)",)
        drawn = np.sort(np.random.default_rng(BOOTSTRAP_SEED).choice(len(train.row_ids), most, replace=False))
        train = Side(train.row_ids[drawn], train.answers[drawn])
    events.say("fitting the baseline (TF-IDF + logistic regression) on the same rows")
    texts = read_texts(clean, train.row_ids, [])["text"].to_pylist()
    if multi:
        fitted = tfidf_one_vs_rest(texts, train.answers, rows.texts)
    else:
        fitted = tfidf_logistic_regression(texts, train.answers.argmax(axis=1), rows.texts, train.answers.shape[1])
    return replace(fitted, notes=(*notes, *fitted.notes))


def token_figures(tokens: Path, manifest: Manifest) -> tuple[IntArray, TokenFigures]:
    """Rows of the shards, ascending, and what tokenizing did to them. Windows of one text are counted once."""
    columns = ("row_id", "n_tokens", "n_truncated", "n_unknown")
    tables = [pq.read_table(tokens / f"{part.name}.parquet", columns=list(columns)) for part in manifest.parts]
    found = pa.concat_tables(tables)
    rows, kept, cut = (found[name].to_numpy() for name in columns[:3])
    total = kept + cut
    if manifest.stride is not None:  # each further window repeats `stride` tokens, [CLS] and [SEP]
        rows, place, windows = np.unique(rows, return_inverse=True, return_counts=True)
        total = np.bincount(place, weights=total, minlength=len(rows)).astype(np.int64) - (windows - 1) * (manifest.stride + 2)
    return rows, TokenFigures(
        lengths=total,
        max_length=manifest.max_length,
        truncation=manifest.truncation,
        truncated_rows=int((total > manifest.max_length).sum()),
        lost_tokens=int(cut.sum(dtype=np.int64)),
        kept_tokens=int(kept.sum(dtype=np.int64)),
        unknown_tokens=int(pc.sum(found["n_unknown"]).as_py() or 0),
    )


def write(e: Evaluation, params: Params, tokens: TokenFigures, called: dict[str, str]) -> None:
    """Write everything the stage makes; `called` is the name of each label."""
    training = files.read_json(paths.TRAIN_REPORT)
    lineage = files.read_json(paths.MODEL / "dagobert.json")
    story = Story(
        level=params.evaluate.confidence_level,
        data=files.read_json(paths.DATA_REPORT),
        split=files.read_json(paths.SPLIT_REPORT),
        training=training,
        loss=read_loss(paths.LOSS_CURVE),
        tokens=tokens,
        parameters=parameters(params),
        called=called,
        lineage=flat(lineage.get("fingerprint", {})),
        files=file_hashes(lineage),
    )
    files.write_json(paths.METRICS, metrics_json(e, best_validation(training)))
    write_predictions(paths.PREDICTIONS, e)
    with files.atomic_directory(paths.PLOTS) as directory:
        plot_data.write_all(directory, e, tokens.lengths)
    card = model_card.render(
        e, story, model=paths.MODEL.name, source=params.data.source or params.data.path, base_model=params.model.name_or_path
    )
    for path, text in ((paths.REPORT, report.render(e, story)), (paths.MODEL_CARD, card)):
        with files.atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def write_predictions(path: Path, e: Evaluation) -> None:
    """One line a test row: row_id, label_id, predicted_id, p (one probability a class).

    With several labels a row, label_ids and predicted_ids are lists.
    """
    columns = {"row_id": pa.array(e.rows.row_ids, pa.int64())}
    if e.multi:
        columns |= {"label_ids": _lists(e.rows.answers), "predicted_ids": _lists(e.chosen)}
    else:
        columns |= {"label_id": pa.array(e.rows.labels, pa.int32()), "predicted_id": pa.array(e.predicted, pa.int32())}
    flat_p = pa.array(e.p.astype(np.float32).ravel())
    columns["p"] = pa.FixedSizeListArray.from_arrays(flat_p, e.p.shape[1]).cast(pa.list_(pa.float32()))
    with files.atomic_file(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def _lists(labels: BoolArray) -> pa.Array:
    return pa.array([np.flatnonzero(row).tolist() for row in labels], pa.list_(pa.int32()))


def read_loss(path: Path) -> dict[str, tuple[FloatArray, FloatArray]]:
    """{split: (steps, losses)} of the loss curve."""
    points: dict[str, list[tuple[float, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            points.setdefault(row["split"], []).append((float(row["step"]), float(row["loss"])))
    return {split: (np.array([s for s, _ in found]), np.array([v for _, v in found])) for split, found in points.items()}


def best_validation(training: Mapping[str, Any]) -> dict[str, Any]:
    """The validation record of the model that was kept."""
    records: list[dict[str, Any]] = training.get("validation") or []
    kept = [r for r in records if r.get("step") == training.get("best_step")]
    return dict((kept or records or [{}])[-1])


def parameters(params: Params) -> dict[str, list[tuple[str, str, str]]]:
    """{section: [(name, value, meaning)]} of params.yaml, for people."""
    values = params.model_dump(mode="json")
    return {
        section: [
            (name, json.dumps(value, ensure_ascii=False), type(getattr(params, section)).model_fields[name].description or "")
            for name, value in values[section].items()
        ]
        for section in values
    }


def file_hashes(lineage: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(file, SHA-256) of what the model was made from, and of its weights."""
    made_from = [(name, digest) for name, digest in flat(lineage.get("data", {})).items()]
    base = lineage.get("base_model", {}).get("sha256")
    weights = paths.MODEL / "model.safetensors"
    return [
        *([("pre-trained checkpoint", str(base))] if base else []),
        *made_from,
        *([(weights.as_posix(), files.sha256_file(weights))] if weights.exists() else []),
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as {"outer.inner": text}, in order."""
    result: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return result


def said(e: Evaluation) -> list[str]:
    """The result, for the terminal."""
    lines = [f"accuracy {percent(e.scores.accuracy)} ({span(e.scores.accuracy_interval)}) on {e.scores.n:,} test rows"]
    if e.baseline_scores is not None:
        lines.append(f"baseline {percent(e.baseline_scores.accuracy)} ({span(e.baseline_scores.accuracy_interval)})")
    return lines
