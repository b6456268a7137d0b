"""Experiments as people ask for them: a table of what was run, by whom, with which changes, and how good it was.

An experiment is DVC's (a commit under refs/exps, visible to `dvc exp show`, `diff`, `apply`, `push`); what DVC does not write
down, seconds and who started it, stands as trailers in the commit's message, never in an output, which must be the same bytes
whenever it is made. The table is read through git alone: 0.1 s where `dvc exp show` takes seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from dagobert import events
from dagobert.errors import DagobertError, RepositoryError
from dagobert.lockfile import Lock, flatten
from dagobert.repository import LOCK, SECONDS, STARTED_BY, Repository

METRICS = "reports/metrics.json"


@dataclass(frozen=True)
class Row:
    """One line of the table. `changes`: parameters that differ from `baseline`, {name: [there, here]}.

    The baseline is the commit that an experiment was made from; of a branch or tag, the commit that held the record before.
    """

    name: str
    kind: str  # experiment, branch or tag
    commit: str
    baseline: str
    when: str
    who: str
    changes: dict[str, tuple[Any, Any]]
    accuracy: float | None
    low: float | None
    high: float | None
    seconds: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def record(repository: Repository, name: str, *, started_by: str | None = None, force: bool = False) -> str:
    """Save the working tree as an experiment; its name.

    Raises:
        RepositoryError: `dvc status` is not clean, the name is taken or is none git allows.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise RepositoryError(f"{name!r}: an experiment's name is letters, digits, '.', '_' and '-', such as lr-3e-5.")
    return repository.save_experiment(name, repository.run_message(name, started_by), force=force)


def rows(repository: Repository) -> list[Row]:
    """Every branch and tag that holds a record, and every experiment; newest first."""
    found = []
    for name, kind, commit, baseline in _places(repository):
        with suppress(DagobertError, ValueError):  # a place without a readable record is no experiment
            found.append(_row(repository, name, kind, commit, baseline))
    return sorted(found, key=lambda row: datetime.fromisoformat(row.when), reverse=True)


def _places(repository: Repository) -> Iterator[tuple[str, str, str, str]]:
    listing = repository.git("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)", "refs/heads", "refs/tags")
    for line in listing.splitlines():
        name, *commits = line.split()
        _, kind, short = name.split("/", 2)
        records = repository.git("log", "-2", "--first-parent", "--format=%H", commits[-1], "--", LOCK).split()
        yield short, "branch" if kind == "heads" else "tag", commits[-1], records[1] if len(records) > 1 else commits[-1]
    for experiment in repository.experiments():
        yield experiment.name, "experiment", experiment.commit, experiment.baseline


def _row(repository: Repository, name: str, kind: str, commit: str, baseline: str) -> Row:
    lock = repository.lock(commit)
    when, who, body = repository.git("show", "--no-patch", "--format=%cI%x00%an%x00%B", commit).split("\0", 2)
    trailers = dict(re.findall(rf"^({STARTED_BY}|{SECONDS}): (.+)$", body, re.MULTILINE))
    content = repository.read(commit, METRICS)
    test = json.loads(content).get("test", {}) if content else {}
    changes = {} if commit == baseline else parameter_changes(repository, lock, baseline)
    taken = json.loads(trailers[SECONDS]) if SECONDS in trailers else {}
    return Row(
        name=name,
        kind=kind,
        commit=commit,
        baseline=baseline,
        when=when,
        who=trailers.get(STARTED_BY, who),
        changes=changes,
        accuracy=test.get("accuracy"),
        low=test.get("accuracy_low"),
        high=test.get("accuracy_high"),
        seconds=round(sum(taken.values()), 3) if taken else None,
    )


def parameter_changes(repository: Repository, lock: Lock, baseline: str) -> dict[str, tuple[Any, Any]]:
    """Parameters that made a record and are otherwise at another commit: {name: (there, here)}."""
    used = locked_params(lock)
    there = flatten(repository.params(baseline))
    return {name: (there.get(name), value) for name, value in used.items() if there.get(name) != value}


def locked_params(lock: Lock) -> dict[str, Any]:
    """Every parameter that a record was made with, by dotted name."""
    found: dict[str, Any] = {}
    for stage in lock.stages.values():
        for named in stage.params.values():
            found |= flatten(named)
    return found


def table(found: list[Row]) -> str:
    """The rows for a terminal."""
    if not found:
        return "No experiment is recorded yet. Run `dvc repro`, then `dagobert record NAME` or commit dvc.lock."
    cells = [("name", "kind", "when", "started by", "accuracy", "time", "changed parameters")]
    cells += [
        (
            row.name,
            row.kind,
            row.when[:16].replace("T", " "),
            row.who,
            accuracy(row),
            "" if row.seconds is None else events.duration(row.seconds),
            ", ".join(f"{name}={_short(here)}" for name, (_, here) in row.changes.items()),
        )
        for row in found
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def accuracy(row: Row) -> str:
    """Accuracy with its interval, in per cent."""
    if row.accuracy is None:
        return ""
    interval = "" if row.low is None or row.high is None else f" ({row.low:.1%} to {row.high:.1%})"
    return f"{row.accuracy:.1%}{interval}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
