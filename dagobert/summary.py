"""`dagobert summary`: what a run came to, on one screen of at most 100 columns, read from the reports and the events.

Times come from the events alone. A stage without events since the run began was up to date or came from the cache: `make run`
touches `STARTED` before it calls DVC, so that old events are told from new ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dagobert import files
from dagobert.errors import RecordError
from dagobert.events import duration

WIDTH = 100
STARTED = "run-started"  # in .dagobert/: its time is when the run began
_CLOCK = 0.05  # seconds a file's time may lie behind the clock


def stage_times(events: Path, stages: Sequence[str], since: float | None) -> dict[str, str]:
    """What to show for each stage: its seconds, `cached` (not run since `since`), `failed` or `running`.

    Args:
        events: directory of the stages' event files.
        stages: names in order.
        since: Unix seconds; None: whatever the events say.
    """
    shown = {}
    for stage in stages:
        records = _records(events / f"{stage}.jsonl")
        start = next((r["t"] for r in records if r.get("kind") == "start"), None)
        end = next((r for r in reversed(records) if r.get("kind") == "end"), None)
        if start is None or (since is not None and start < since - _CLOCK):
            shown[stage] = "cached"
        elif end is None:
            shown[stage] = "running"
        else:
            shown[stage] = duration(end["seconds"]) if end.get("status") == "ok" else "failed"
    return shown


def _records(path: Path) -> list[dict[str, Any]]:
    """Events of a file; a line cut short by a kill is left out."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def load(reports: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """data.json, split.json and metrics.json.

    Raises:
        RecordError: a run has not come that far.
    """
    found = []
    for name in ("data.json", "split.json", "metrics.json"):
        path = reports / name
        if not path.is_file():
            raise RecordError(f"{path}: no such file: there is no finished run here. Run `dvc repro` (or `make run`) first.")
        found.append(files.read_json(path))
    return found[0], found[1], found[2]


def table(
    data: Mapping[str, Any],
    split: Mapping[str, Any],
    metrics: Mapping[str, Any],
    times: Mapping[str, str],
    places: Mapping[str, str],
    commands: Sequence[tuple[str, str]],
) -> str:
    """The screen.

    Args:
        data: reports/data.json.
        split: reports/split.json.
        metrics: reports/metrics.json.
        times: what to show for each stage.
        places: what lies where, {what: path}.
        commands: (command, what it does) to try next.
    """
    test, baseline = metrics["test"], metrics.get("baseline")
    rows = [("rows read", _rows_in(data)), ("quarantined", _quarantined(data)), ("split", _split(split))]
    rows.append(("accuracy", f"{_score(test)} on {test['n']:,} test rows"))
    if baseline is not None:
        rows.append(("baseline", f"{_score(baseline)} TF-IDF + logistic regression, same rows"))
    if "against_baseline" in metrics:
        rows.append(("difference", _difference(metrics["against_baseline"])))
    rows += [("time", line) if i == 0 else ("", line) for i, line in enumerate(_wrapped(times))]
    rows += list(places.items())
    wide = max(len(name) for name, _ in rows)
    line = "─" * WIDTH
    body = [f" {name:<{wide}}   {text}" for name, text in rows]
    width = max(len(command) for command, _ in commands)
    after = [f" {command:<{width}}   # {what}" for command, what in commands]
    return "\n".join(_fit(text) for text in [line, *body, line, " next:", *after, line])


def next_commands(model: str, root: Path) -> list[tuple[str, str]]:
    """Three commands to try, written so that they work in this shell."""
    local = root / ".venv" / "bin"
    prefix = ".venv/bin/" if local.is_dir() and "VIRTUAL_ENV" not in os.environ else ""
    return [
        (f"echo 'A wonderful film.' | {prefix}dagobert predict {model} - -o -", "ask the model"),
        (f"{prefix}dvc exp run -S train.learning_rate=5e-5", "an experiment"),
        (f"{prefix}dvc plots show", "the plots"),
    ]


def _rows_in(data: Mapping[str, Any]) -> str:
    other = data.get("rows_not_selected", 0)
    left = f", of these {other:,} not asked for (data.where)" if other else ""
    return f"{data['rows_read']:,}{left}"


def _quarantined(data: Mapping[str, Any]) -> str:
    reasons = sorted((data.get("quarantined_by_reason") or {}).items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{reason.replace('_', ' ')} {n:,}" for reason, n in reasons[:3] if n)
    more = f", {len(reasons) - 3} more reasons" if len(reasons) > 3 else ""
    return f"{data['rows_quarantined']:,}" + (f" ({named}{more})" if named else "")


def _split(split: Mapping[str, Any]) -> str:
    return ", ".join(f"{side} {n:,}" for side, n in split["sizes"].items() if n or side != "unused")


def _score(scores: Mapping[str, Any]) -> str:
    low, high = scores["accuracy_low"], scores["accuracy_high"]
    return f"{100 * scores['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _difference(found: Mapping[str, Any]) -> str:
    value, low, high = (100 * found[f"accuracy_difference{end}"] for end in ("", "_low", "_high"))
    p = found["mcnemar_mid_p"]
    shown = "< 0.001" if p < 0.001 else f"= {p:.3f}"
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f}), McNemar mid-p {shown}"


def _wrapped(times: Mapping[str, str]) -> list[str]:
    """`fetch 1.2 s, clean cached, …` on as many lines as needed."""
    lines: list[str] = []
    for stage, shown in times.items():
        item = f"{stage} {shown}"
        if lines and len(lines[-1]) + len(item) + 2 <= WIDTH - 20:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return lines


def _fit(text: str) -> str:
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
