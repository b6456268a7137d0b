"""clean: read the rows, clean the text, quarantine what cannot be used.

The quarantine and the report are written before a broken contract stops the run, so that there is something to look at.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dagobert import events, files, records
from dagobert.changes import most_changed
from dagobert.curation import Outcome, Selection, curate
from dagobert.errors import DataContractError, LabelError
from dagobert.quality import GROUP_REASONS, ROW_REASONS, Contract
from dagobert.records import Columns, Layout, Notes, Reading
from dagobert.stages import paths

if TYPE_CHECKING:
    from dagobert.params import Params
    from dagobert.params.clean import CleanParams

OUTPUTS: tuple[Path, ...] = (paths.CLEAN, paths.QUARANTINE, paths.DATA_REPORT)
_FILES_SHOWN = 100
_MAX_LABELS = 1000  # classes counted one by one in the report


def inputs(params: Params) -> list[Path]:
    """The data files."""
    return list(records.find(params.data.path, params.data.format).files)


def run(params: Params) -> None:
    """Read data.path, write clean rows, quarantined rows and the report.

    Raises:
        RecordError: a file that cannot be read at all, or lacks a column.
        DataContractError: more was quarantined than `clean.max_quarantined` allows, or a policy says `fail`.
        LabelError: a label outside `labels.classes`, where the policy says `fail`.
    """
    layout = records.find(params.data.path, params.data.format)
    notes = Notes()
    draft = files.partial(paths.CLEAN.with_name("draft.arrow"))
    draft.parent.mkdir(parents=True, exist_ok=True)
    for left in draft.parent.glob(".draft.arrow.*.partial"):  # of a run that was killed: it may be gigabytes
        left.unlink()
    with files.atomic_file(paths.QUARANTINE) as quarantine, files.atomic_file(paths.CLEAN) as clean:
        outcome = _curate(params, layout, notes, clean, quarantine, draft)
    report = _report(outcome, notes)
    files.write_json(paths.DATA_REPORT, report)
    _tell(outcome, notes)
    try:
        _judge(outcome, params.clean)
    except (DataContractError, LabelError):
        paths.CLEAN.unlink()
        raise


def show_changes(params: Params, n: int) -> list[str]:
    """The `n` texts that cleaning changes most, before and after. Writes nothing.

    Raises:
        RecordError: a file that cannot be read at all, or lacks a column.
    """
    layout = records.find(params.data.path, params.data.format)
    batches = records.read(layout, columns(params), reading(params))
    rows = selection(params)
    chosen = (batch.filter(rows.rows(batch)) for batch in batches)
    return [str(change) for change in most_changed(chosen, params.clean.recipe, n)]


def columns(params: Params) -> Columns:
    """The columns that `data` names."""
    return Columns(params.data.text, params.data.label, selection(params).columns)


def selection(params: Params) -> Selection:
    """Which rows and further columns `data` asks for."""
    return Selection(params.data.where, params.data.text_pair, params.data.extra)


def reading(params: Params) -> Reading:
    """How `data` says the files are written."""
    data = params.data
    return Reading(data.format, data.encoding, data.delimiter, data.quoting, data.columns)


def contract(params: Params) -> Contract:
    """The rules, without pydantic."""
    clean = params.clean
    return Contract(
        unreadable=clean.unreadable,
        empty=clean.empty,
        missing_label=clean.missing_label,
        unknown_label=clean.unknown_label,
        wrong_length=clean.wrong_length,
        conflicting_labels=clean.conflicting_labels,
        duplicates=clean.duplicates,
        normalized_duplicates=clean.normalized_duplicates,
        near_duplicates=clean.near_duplicates,
        near_duplicate_threshold=clean.near_duplicate_threshold,
        min_chars=clean.min_chars,
        max_chars=clean.max_chars,
        # Several labels a row: `encode-labels` takes them apart and knows the classes; none at all is an answer, too.
        classes=params.labels.classes if params.labels.separator is None else None,
        needs_label=params.labels.separator is None,
    )


def _curate(params: Params, layout: Layout, notes: Notes, clean: Path, quarantine: Path, draft: Path) -> Outcome:
    with events.progress("reading and cleaning", max(layout.n_bytes >> 20, 1), unit="MB") as bar:
        used = shown = rows = 0

        def on_bytes(n: int) -> None:
            nonlocal used, shown
            used += n
            bar.update((used >> 20) - shown, rows=rows)
            shown = used >> 20

        def on_rows(n: int) -> None:
            nonlocal rows
            rows += n

        notes.on_bytes = on_bytes
        batches = records.read(layout, columns(params), reading(params), notes)
        outcome = curate(
            batches,
            selection(params),
            params.clean.recipe,
            contract(params),
            clean=clean,
            quarantine=quarantine,
            draft=draft,
            on_rows=on_rows,
        )
    assert outcome.rows_read == sum(file.rows for file in notes.files)
    return outcome


def _report(outcome: Outcome, notes: Notes) -> dict[str, Any]:
    considered = outcome.rows_out + outcome.rows_quarantined
    labels = {str(name): outcome.labels[name] for name in sorted(outcome.labels)}
    order = (*ROW_REASONS, *GROUP_REASONS)
    return {
        "rows_read": outcome.rows_read,
        "rows_not_selected": outcome.rows_not_selected,
        "rows_out": outcome.rows_out,
        "rows_quarantined": outcome.rows_quarantined,
        "quarantined_share": round(outcome.rows_quarantined / max(considered, 1), 6),
        "quarantined_by_reason": {reason: outcome.reasons[reason] for reason in order if outcome.reasons[reason]},
        "labels": dict(list(labels.items())[:_MAX_LABELS]),
        "n_labels": len(labels),
        "smallest_class": min(labels.values(), default=0),
        "rows_changed_by_cleaning": outcome.changed,
        "characters": _lengths(outcome),
        "n_files": len(notes.files),
        "files": [
            {"name": file.name, "format": file.format, "encoding": file.encoding, "rows": file.rows}
            for file in notes.files[:_FILES_SHOWN]
        ],
        "examples": {reason: outcome.examples[reason] for reason in order if reason in outcome.examples},
    }


def _lengths(outcome: Outcome) -> dict[str, Any]:
    lengths = np.concatenate(outcome.lengths) if outcome.lengths else np.zeros(0, np.int32)
    if not len(lengths):
        return {}
    # Bins grow by a quarter of a power of two: four a doubling.
    edges = np.unique(np.round(2 ** (np.arange(0, 4 * 31 + 1) / 4)).astype(np.int64))
    edges = edges[: int(np.searchsorted(edges, lengths.max(), side="right")) + 1]
    counts = np.histogram(lengths, edges)[0]
    first = int(np.flatnonzero(counts)[0])
    quantiles = np.quantile(lengths, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1], method="nearest").tolist()
    names = ("min", "p5", "p25", "median", "p75", "p95", "max")
    return {
        "mean": round(float(lengths.mean()), 1),
        **{name: int(value) for name, value in zip(names, quantiles, strict=True)},
        "histogram": {"edges": edges[first:].tolist(), "counts": counts[first:].tolist()},
    }


def _tell(outcome: Outcome, notes: Notes) -> None:
    selected = f", {outcome.rows_not_selected:,} not selected by data.where" if outcome.rows_not_selected else ""
    events.say(
        f"{outcome.rows_read:,} rows read{selected}, {outcome.rows_out:,} clean, {outcome.rows_quarantined:,} quarantined"
        + (f" ({_by_reason(outcome)})" if outcome.reasons else ""),
        rows_read=outcome.rows_read,
        rows_out=outcome.rows_out,
        rows_quarantined=outcome.rows_quarantined,
    )
    legacy = [file for file in notes.files if file.encoding is not None and not file.encoding.startswith("utf")]
    if legacy:
        more = f" and {len(legacy) - 1:,} more files" if len(legacy) > 1 else ""
        events.warn(f"{legacy[0].name}{more}: not UTF-8, read as {legacy[0].encoding}. If that is wrong, set data.encoding.")


def _by_reason(outcome: Outcome) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in outcome.reasons.most_common())


def _judge(outcome: Outcome, params: CleanParams) -> None:
    look = f"See {paths.QUARANTINE} and the examples in {paths.DATA_REPORT}."
    for reason, count in outcome.reasons.items():
        if _policy(reason, params) == "fail":
            example = outcome.examples[reason][0]
            error = LabelError if reason == "unknown_label" else DataContractError
            raise error(
                f"{example['file']}:{example['line']}: {reason}: {example['detail']}; {count:,} such rows, and "
                f"clean.{_parameter(reason)} is `fail`. Mend the rows, or set it to `quarantine`. {look}"
            )
    considered = outcome.rows_out + outcome.rows_quarantined
    if not considered:
        some = f"None of the {outcome.rows_read:,} rows is selected by data.where."
        what = some if outcome.rows_read else "The data holds no rows."
        raise DataContractError(f"{what} Check data.path and data.where in params.yaml.")
    share = outcome.rows_quarantined / considered
    if share > params.max_quarantined:
        raise DataContractError(
            f"{outcome.rows_quarantined:,} of {considered:,} rows ({share:.1%}) were quarantined, more than "
            f"clean.max_quarantined ({params.max_quarantined:.1%}) allows: {_by_reason(outcome)}. {look}"
        )


_PARAMETERS = {
    "malformed_record": "unreadable",
    "undecodable_text": "unreadable",
    "missing_text": "empty",
    "empty_text": "empty",
    "too_short": "wrong_length",
    "too_long": "wrong_length",
    "duplicate": "duplicates",
    "normalized_duplicate": "normalized_duplicates",
    "near_duplicate": "near_duplicates",
}


def _parameter(reason: str) -> str:
    return _PARAMETERS.get(reason, reason)


def _policy(reason: str, params: CleanParams) -> str:
    return str(getattr(params, _parameter(reason)))
