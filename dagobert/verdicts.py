"""The verdict of a reproduction: plain values in, one of four words and its reasons out.

    identical          0   every output has the hash that was recorded
    within tolerance   0   hashes differ from the stage that trains on, the fingerprint differs, every metric is close enough
    different          1   the first stage that differs is named, with the likeliest cause
    cannot run         2   something that the run needs is missing or damaged

Stages before the one that trains must be byte-identical on every machine: there is no tolerance for them. Another parameter or
another line of code than recorded, or a record whose stages did not read what the stages before them made, is never within
tolerance, however close the metrics come.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from math import sqrt
from typing import Any, Literal

Word = Literal["identical", "within tolerance", "different", "cannot run"]
Outcome = Literal["identical", "different", "input", "failed", "not run"]

EXIT_CODES: dict[Word, int] = {"identical": 0, "within tolerance": 0, "different": 1, "cannot run": 2}

# Absolute tolerances of metrics that are no shares of rows. Shares (accuracy, precision, recall, F1, AUC) get the half-width of
# their own 95 % interval, 1.96·sqrt(p(1−p)/n): two honest runs of the same recipe differ by less in 19 of 20 cases.
TOLERANCES = {"log_loss": 0.05, "loss": 0.05, "brier": 0.02, "ece": 0.03}
SHARES = ("accuracy", "precision", "recall", "f1", "auc", "average_precision")
COUNTS = ("n", "support")  # the same rows, or there is nothing to compare
BLAMED = ("code", "parameter", "command", "chain", "base model")  # kinds of faults that no other machine excuses
_Z = 1.96
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]+")
_MARKUP = re.compile(r"[\\`*_{}\[\]#|~$@!]|(?<=:)//|(?<=www)\.|^[-+]|(?<=^\d)[.)]")  # marks, bare links, lists


@dataclass(frozen=True)
class Fault:
    """Something recorded that does not fit its commit. `kind`: code, parameter, command, chain, base model, file, missing."""

    stage: str
    kind: str
    text: str


@dataclass(frozen=True)
class FileResult:
    """One output: the hash recorded, the hash now (None: not made), and how they differ."""

    path: str
    recorded: str
    now: str | None
    how: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether the bytes are those recorded."""
        return self.recorded == self.now


@dataclass(frozen=True)
class StageResult:
    """One stage: what became of it, how long it took (seconds; None: it did not run), its outputs."""

    name: str
    outcome: Outcome
    seconds: float | None = None
    files: tuple[FileResult, ...] = ()
    words: tuple[str, ...] = ()  # last lines of a stage that failed


@dataclass(frozen=True)
class MetricResult:
    """One figure, recorded and now; `tolerance` is absolute, 0: must be equal, None: shown and not judged."""

    name: str
    recorded: float
    now: float | None
    tolerance: float | None

    @property
    def within(self) -> bool:
        """Whether the difference is at most the tolerance."""
        return self.tolerance is None or (self.now is not None and abs(self.now - self.recorded) <= self.tolerance)


@dataclass(frozen=True)
class Report:
    """All that `reproduce` found. `fingerprint` and `environment`: {name: [recorded, now]} of what differs."""

    revision: str
    commit: str
    verdict: Word
    stages: tuple[StageResult, ...] = ()
    metrics: tuple[MetricResult, ...] = ()
    fingerprint: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    environment: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    first: str | None = None
    causes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0, 1 or 2."""
        return EXIT_CODES[self.verdict]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"format": 1, "exit_code": self.exit_code, **asdict(self)}


def judge(
    stages: tuple[StageResult, ...],
    training: frozenset[str],
    metrics: tuple[MetricResult, ...],
    fingerprint: dict[str, tuple[Any, Any]],
    faults: tuple[Fault, ...],
) -> tuple[Word, str | None]:
    """The verdict, and the first stage that differs.

    Args:
        stages: in the order they ran.
        metrics: without any, nothing is within tolerance.
        training: the stage whose result depends on the machine, and all downstream of it.
    """
    first = next((stage for stage in stages if stage.outcome in ("different", "failed")), None)
    if first is None:
        return "identical", None
    if first.outcome == "failed":
        return "cannot run", first.name
    failed = any(stage.outcome == "failed" for stage in stages)
    blamed = any(fault.kind in BLAMED for fault in faults)
    excused = fingerprint and first.name in training and not failed and not blamed
    if excused and metrics and all(metric.within for metric in metrics):
        return "within tolerance", first.name
    return "different", first.name


def compare_metrics(recorded: dict[str, Any], now: dict[str, Any] | None, given: dict[str, float]) -> Iterator[MetricResult]:
    """Each number of a metrics file beside its counterpart.

    Args:
        recorded, now: flat {dotted name: value}; what is no number is left out.
        given: tolerances that the user set, by the last part of the name.
    """
    for name, value in recorded.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        other = (now or {}).get(name)
        found = float(other) if isinstance(other, (int, float)) else None
        yield MetricResult(name, float(value), found, tolerance(name, value, recorded, given))


def tolerance(name: str, value: float, recorded: dict[str, Any], given: dict[str, float]) -> float | None:
    """How far a figure may move when the machine is another: see `TOLERANCES`. None: as far as it likes (a p-value, say)."""
    group, _, last = name.rpartition(".")
    if last in given:
        return given[last]
    if last in COUNTS:
        return 0.0
    plain = last.removesuffix("_at_temperature").removesuffix("_low").removesuffix("_high")
    if plain in TOLERANCES:
        return TOLERANCES[plain]
    if any(plain.endswith(share) for share in SHARES):
        rows = _rows(group, recorded)
        share = min(max(float(value), 1 / rows), 1 - 1 / rows) if rows > 1 else 0.5
        return _Z * sqrt(share * (1 - share) / rows)
    return None


def _rows(group: str, recorded: dict[str, Any]) -> int:
    """Rows behind a figure: the class's support, or the `n` of the nearest group above it."""
    while True:
        for name in ("support", "n"):
            value = recorded.get(f"{group}.{name}" if group else name)
            if isinstance(value, int) and value > 0:
                return value
        if not group:
            return 100
        group = group.rpartition(".")[0]


def differing(recorded: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Entries of two flat mappings that are not equal: {name: (recorded, now)}, sorted."""
    names = sorted(recorded.keys() | now.keys())
    return {name: (recorded.get(name), now.get(name)) for name in names if recorded.get(name) != now.get(name)}


def text(report: Report) -> str:
    """The report for a terminal."""
    lines = [f"reproduce {report.revision} ({report.commit[:10]}): {report.verdict}"]
    if report.first is not None and report.verdict != "identical":
        lines[0] += f", first in {report.first}"
    if report.stages:
        lines += ["", *_table(_stage_rows(report.stages))]
    for title, sentences in _sections(report):
        if sentences:
            lines += ["", f"{title}:", *(f"  {sentence}" for sentence in sentences)]
    return "\n".join(lines)


def markdown(report: Report) -> str:
    """The report as GitHub-flavoured Markdown, for an artifact; words of stages and data are never taken for markup."""
    first = f", first in `{report.first}`" if report.first and report.verdict != "identical" else ""
    lines = [f"## {_escaped(report.revision)}: {report.verdict}{first}", "", f"Commit `{report.commit}`."]
    if report.stages:
        head, *rows = _stage_rows(report.stages)
        lines += ["", _markdown_row(head), f"|{' --- |' * len(head)}", *map(_markdown_row, rows)]
    for title, sentences in _sections(report):
        if sentences:
            lines += ["", f"### {title.capitalize()}", "", *(f"- {_escaped(sentence)}" for sentence in sentences)]
    return "\n".join(lines) + "\n"


def _escaped(words: str) -> str:
    """Text that Markdown shows as it is, on one line: no HTML, no emphasis, no link."""
    plain = _CONTROL.sub(" ", words).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\g<0>", plain)


def _sections(report: Report) -> Iterator[tuple[str, list[str]]]:
    yield "missing", list(report.missing)
    yield "how", [f"{file.path}: {how}" for stage in report.stages for file in stage.files for how in file.how]
    yield "likeliest cause", list(report.causes)
    yield "last words", [line for stage in report.stages for line in stage.words]
    if report.verdict in ("within tolerance", "different"):
        shown = [metric for metric in report.metrics if metric.now != metric.recorded]
        yield "metrics (recorded → now, tolerance)", [_metric(metric) for metric in shown]
    yield "fingerprint (recorded → now)", [f"{name}: {a} → {b}" for name, (a, b) in report.fingerprint.items()]
    yield (
        "environment (locked then → installed)",
        [f"{n}: {a} → {b or 'not there'}" for n, (a, b) in report.environment.items()],
    )
    yield "the record does not fit its commit", [fault.text for fault in report.faults]
    yield "notes", list(report.notes)


def _metric(metric: MetricResult) -> str:
    now = "nothing" if metric.now is None else f"{metric.now:.6g}"
    judged = "" if metric.tolerance is None else f", {'within' if metric.within else 'outside'} ±{metric.tolerance:.3g}"
    return f"{metric.name}: {metric.recorded:.6g} → {now}{judged}"


def _stage_rows(stages: tuple[StageResult, ...]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("stage", "outcome", "outputs as recorded", "seconds")]
    for stage in stages:
        same = sum(file.same for file in stage.files)
        count = f"{same} of {len(stage.files)}" if stage.files else ""
        rows.append((stage.name, stage.outcome, count, "" if stage.seconds is None else f"{stage.seconds:.1f}"))
    return rows


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _markdown_row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"
