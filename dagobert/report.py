"""The report: one HTML page that says first whether the model is any good, and needs nothing but itself.

No scripts, no external resource, a content policy that forbids both; every text from the data is escaped, and characters that
could act on the page (controls, direction marks) are shown as visible signs. The same bytes for the same inputs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from dagobert import curves, plots
from dagobert.evaluation import Evaluation, confused_pairs, most_confident_mistakes
from dagobert.metrics import Interval

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MISTAKES = 12
EXAMPLES = 20  # a reason of quarantine
LONGEST_TEXT = 4000  # characters of one text shown
CURVES = 6  # classes drawn in one ROC or precision–recall picture
CONFUSED = 10


@dataclass(frozen=True)
class TokenFigures:
    """What tokenizing did to all rows of the clean data. `lengths` (rows,) in tokens before truncation."""

    lengths: IntArray
    max_length: int
    truncation: str
    truncated_rows: int
    lost_tokens: int
    kept_tokens: int
    unknown_tokens: int

    @property
    def unknown_share(self) -> float:
        """[UNK] among the tokens kept."""
        return self.unknown_tokens / max(self.kept_tokens, 1)


@dataclass(frozen=True)
class Story:
    """Everything the page tells besides the figures: what the stages before reported, as plain values."""

    level: float
    data: Mapping[str, Any]
    split: Mapping[str, Any]
    training: Mapping[str, Any]
    loss: Mapping[str, tuple[FloatArray, FloatArray]]
    tokens: TokenFigures
    parameters: Mapping[str, Sequence[tuple[str, str, str]]]  # section → (name, value, meaning)
    called: Mapping[str, str] = field(default_factory=dict)  # label in the data → name of the class
    lineage: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[tuple[str, str]] = ()  # (file, SHA-256)


@dataclass(frozen=True)
class Verdict:
    """The first sentence: good (better than the baseline), unclear, bad (worse), plain (no baseline to compare with)."""

    kind: str
    headline: str
    detail: str


def verdict(e: Evaluation, level: float) -> Verdict:
    """Is the model better than what one gets without BERT?"""
    rows = f"{e.scores.n:,} {'text' if e.scores.n == 1 else 'texts'} it never saw"
    interval = f"{percent(level, 0)} interval {span(e.scores.accuracy_interval)}"
    right = "has exactly the right labels for" if e.multi else "is right on"
    head = f"The model {right} {percent(e.scores.accuracy)} of {rows} ({interval})."
    c = e.comparison
    if c is None or e.baseline_scores is None:
        return Verdict("plain", head, f"Always giving the most frequent answer would be right on {percent(e.majority_share)}.")
    points = f"{abs(100 * c.difference):.1f} points"
    between = f"{signed(c.interval.low)} to {signed(c.interval.high)}"
    numbers = f"difference {signed(c.difference)} points, interval {between}, McNemar mid-p {p_value(c.p_mid)}"
    other = f"TF-IDF + logistic regression on the same rows is right on {percent(e.baseline_scores.accuracy)}"
    if c.interval.low > 0:
        return Verdict("good", head, f"{other}: BERT is {points} better ({numbers}).")
    if c.interval.high < 0:
        return Verdict("bad", head, f"{other}: BERT is {points} worse ({numbers}). As it stands, use the simpler model.")
    return Verdict("unclear", head, f"{other}: on these rows the two cannot be told apart ({numbers}).")


def render(e: Evaluation, story: Story) -> str:
    """The page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dagobert"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        whole=whole,
        percent=lambda share, digits=1: whole(percent(share, digits)),
        count=count,
        visible=visible,
        clip=clip,
        span=lambda i: whole(span(i)),
        p_value=p_value,
        signed=signed,
        fixed=fixed,
    )
    page = environment.get_template("report.html").render(
        e=e,
        story=story,
        verdict=verdict(e, story.level),
        pictures=pictures(e, story),
        mistakes=_mistakes(e),
        confused=_confused(e),
        classes=_classes(e),
        quarantine=_quarantine(story.data),
        balance=_balance(story.data),
        CURVES=CURVES,
    )
    return page + "\n"


def pictures(e: Evaluation, story: Story) -> dict[str, Markup | None]:
    """Every picture of the page by name; None where there is nothing to draw."""
    names = e.names
    rows = [("this model", e.scores.accuracy, *e.scores.accuracy_interval)]
    if e.baseline_scores is not None:
        rows.append(("TF-IDF + log. regression", e.baseline_scores.accuracy, *e.baseline_scores.accuracy_interval))
    edges, texts = plots.length_bins(story.tokens.lengths)
    r, lowest = e.reliability, 0.5 if e.multi else 1 / len(names)
    _, share, accuracy = curves.coverage(e.correct, e.confidence)
    drawn: dict[str, str | None] = {
        "accuracy": plots.intervals("accuracy", rows, "Accuracy with its interval", chance=e.majority_share),
        "loss": plots.loss_curves(dict(story.loss), "Training and validation loss by optimizer step") if story.loss else None,
        "confusion": None
        if e.scores.confusion is None
        else plots.confusion(e.scores.confusion, names, "Test rows by actual and predicted class"),
        "reliability": plots.reliability(
            r.confidence, r.accuracy, r.count, lowest, "Share of right answers against the model's confidence"
        ),
        "coverage": plots.coverage(share, accuracy, "Accuracy among the surest rows against their share"),
        "lengths": plots.lengths(edges, texts, story.tokens.max_length, "Texts by length in tokens"),
    }
    chosen, roc, pr = _curves(e)
    if chosen:
        drawn["roc"] = plots.curves("roc", roc, ("false-positive rate", "true-positive rate"), "ROC curves", diagonal=True)
        drawn["pr"] = plots.curves("pr", pr, ("recall", "precision"), "Precision–recall curves")
    else:
        drawn |= {"roc": None, "pr": None}
    return {name: None if svg is None else Markup(svg) for name, svg in drawn.items()}


Line = tuple[str, FloatArray, FloatArray]


def _curves(e: Evaluation) -> tuple[list[int], list[Line], list[Line]]:
    found: list[tuple[float, int, Line, Line]] = []
    for c in curves.drawn_classes(e.scores.classes.support, e.scores.n, e.multi):
        swept = curves.sweep(e.rows.answers[:, c], e.p[:, c])
        x, y, area = curves.roc(swept)
        recall, precision, average = curves.precision_recall(swept)
        name = e.names[c]
        found.append((area, c, (f"{name} (area {area:.3f})", x, y), (f"{name} (average {average:.3f})", recall, precision)))
    worst = sorted(sorted(found, key=lambda item: item[:2])[:CURVES], key=lambda item: item[1])
    return [item[1] for item in worst], [item[2] for item in worst], [item[3] for item in worst]


def _mistakes(e: Evaluation) -> list[dict[str, Any]]:
    result = []
    for i in most_confident_mistakes(e, MISTAKES).tolist():
        wrong = e.chosen[i] != e.rows.answers[i]
        sure = np.maximum(e.p[i], 1 - e.p[i])[wrong].max() if e.multi else e.p[i].max()
        result.append(
            {
                "text": e.rows.texts[i],
                "actual": _said(e, e.rows.answers[i]),
                "predicted": _said(e, e.chosen[i]),
                "confidence": float(sure),
                "where": f"{e.rows.source_files[i]}:{e.rows.source_lines[i]}",
            }
        )
    return result


def _said(e: Evaluation, labels: NDArray[np.bool_]) -> str:
    return ", ".join(e.names[c] for c in np.flatnonzero(labels)) or "none"


def _confused(e: Evaluation) -> list[tuple[str, str, int, float]]:
    """(actual, predicted, rows, share of the actual class) of the pairs most often confused."""
    names, matrix = (*e.names, "none"), confused_pairs(e)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:CONFUSED]
    pairs = [divmod(int(cell), len(matrix)) for cell in order]
    of = np.append(e.scores.classes.support, e.scores.n)
    return [(names[a], names[b], int(matrix[a, b]), float(matrix[a, b] / of[a])) for a, b in pairs if matrix[a, b]]


def _classes(e: Evaluation) -> list[dict[str, Any]]:
    c, b = e.scores.classes, e.baseline_scores
    return [
        {
            "name": name,
            "support": int(c.support[i]),
            "known": bool(c.support[i] > 0),
            "predicted": bool(c.support[i] > 0 or not c.absent[i]),
            "precision": float(c.precision[i]),
            "recall": float(c.recall[i]),
            "f1": float(c.f1[i]),
            "f1_interval": e.scores.f1_intervals[i],
            "baseline_f1": None if b is None else float(b.classes.f1[i]),
        }
        for i, name in enumerate(e.names)
    ]


def _quarantine(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    examples = data.get("examples") or {}
    reasons = sorted((data.get("quarantined_by_reason") or {}).items(), key=lambda item: (-item[1], item[0]))
    return [
        {"reason": reason.replace("_", " "), "rows": n, "examples": list(examples.get(reason, []))[:EXAMPLES]}
        for reason, n in reasons
    ]


def _balance(data: Mapping[str, Any]) -> list[tuple[str, int, float]]:
    labels = data.get("labels") or {}
    total = sum(labels.values())
    return [(str(label), n, n / max(total, 1)) for label, n in labels.items()]


def whole(text: str) -> str:
    """A sentence whose numbers keep their unit on the same line."""
    return re.sub(r"(?<=\d) (?=%|points\b)|(?<=[=<]) (?=\d)", "\u00a0", text)


def percent(share: float, digits: int = 1) -> str:
    """0.8923 → `89.2 %`."""
    return f"{100 * share:.{digits}f} %"


def span(interval: Interval) -> str:
    """(0.871, 0.91) → `87.1 to 91.0 %`."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def signed(share: float) -> str:
    """A difference in percentage points, with its sign: 0.032 → `+3.2`."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "−")


def p_value(p: float) -> str:
    """`= 0.034`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def fixed(value: float, digits: int = 3) -> str:
    """A number with a fixed number of places."""
    return f"{value:.{digits}f}"


def count(n: int) -> str:
    """1234 → `1,234`."""
    return f"{n:,}"


def clip(text: str, most: int) -> str:
    """The text, cut at a space near `most` characters."""
    if len(text) <= most:
        return text
    cut = text[:most]
    return (cut[: cut.rfind(" ")] if " " in cut[most // 2 :] else cut) + " …"


def visible(text: Any) -> str:
    """Text as it is, but with control and direction characters as visible signs, and cut at `LONGEST_TEXT`."""
    return re.sub(r"[^\S\n ]|[^\w\s!-~]", _sign, clip(str(text), LONGEST_TEXT))


def _sign(match: re.Match[str]) -> str:
    character = match.group()
    if unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} or character == "\u200d":
        return character
    return chr(0x2400 + ord(character)) if ord(character) < 0x20 else f"⟨U+{ord(character):04X}⟩"
