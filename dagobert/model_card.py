"""The model card: README.md in Hugging Face's form, made from the figures and never written by hand.

The front matter carries the results as a `model-index`, which the Hub shows. Strings are written as JSON, which is YAML: no
name can break it. The licence is left for the owner to say: it follows from data and checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from dagobert.evaluation import Evaluation
from dagobert.report import Story, percent, span, verdict

_LARGE = 30  # rows from which a slice is worth naming
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def render(e: Evaluation, story: Story, *, model: str, source: str, base_model: str) -> str:
    """The card.

    Args:
        e: the judged model.
        story: what the stages before reported.
        model: what the model is called.
        source: where the data came from (data.source, or data.path).
        base_model: model.name_or_path.
    """
    return _front_matter(e, model, source, base_model) + "\n" + _body(e, story, model, source, base_model)


def _front_matter(e: Evaluation, model: str, source: str, base_model: str) -> str:
    s = e.scores
    results = [
        ("accuracy", s.accuracy, f"accuracy ({span(s.accuracy_interval)})"),
        ("f1", s.classes.macro_f1, "macro F1"),
        ("precision", s.classes.macro_precision, "macro precision"),
        ("recall", s.classes.macro_recall, "macro recall"),
    ]
    lines = ["---", "library_name: transformers", "pipeline_tag: text-classification"]
    if _HUB_NAME.fullmatch(base_model):
        lines.append(f"base_model: {_quoted(base_model)}")
    lines += ["tags:", "- bert", "- text-classification", "- dagobert", "metrics:", "- accuracy", "- f1", "model-index:"]
    lines += [f"- name: {_quoted(model)}", "  results:", "  - task:", "      type: text-classification"]
    lines += ["    dataset:", f"      name: {_quoted(source)}", f"      type: {_quoted(_slug(source))}", "      split: test"]
    lines.append("    metrics:")
    for kind, value, name in results:
        lines += [f"    - type: {kind}", f"      value: {round(value, 6)}", f"      name: {_quoted(name)}"]
    return "\n".join([*lines, "---"]) + "\n"


def _body(e: Evaluation, story: Story, model: str, source: str, base_model: str) -> str:
    found = verdict(e, story.level)
    classes = "\n".join(
        f"| {_cell(name)} | {c_support:,} | {p:.3f} | {r:.3f} | {f:.3f} |"
        for name, c_support, p, r, f in zip(
            e.names,
            e.scores.classes.support.tolist(),
            e.scores.classes.precision.tolist(),
            e.scores.classes.recall.tolist(),
            e.scores.classes.f1.tolist(),
            strict=True,
        )
    )
    t, s, data = story.tokens, e.scores, story.data
    answers = ", ".join(f"`{_line(name)}`" for name in e.names[:20]) + (" …" if len(e.names) > 20 else "")
    split = ", ".join(f"{side} {n:,}" for side, n in story.split.get("sizes", {}).items())
    cut = percent(t.truncated_rows / max(len(t.lengths), 1))
    return f"""# {_line(model)}

{found.headline} {found.detail}

A text classifier: `{_line(base_model)}`, fine-tuned to answer {answers}.

```python
from transformers import pipeline

classify = pipeline("text-classification", model="PATH")
classify("…", truncation=True, max_length={t.max_length})
```

## Data

`{_line(source)}`: {data["rows_read"]:,} rows read,{_not_selected(data)} {data["rows_quarantined"]:,} quarantined, \
{data["rows_out"]:,} clean.
Split: {split}.

## Results on the test rows

| class | rows | precision | recall | F1 |
|---|---:|---:|---:|---:|
{classes}

Accuracy {percent(s.accuracy)} ({span(s.accuracy_interval)}), macro F1 {s.classes.macro_f1:.3f}, log-loss {s.log_loss:.3f},
calibration error {s.ece:.3f}.
{_baseline(e)}
## Limits

- It knows texts like those it was trained on, and only the classes above: it has no answer for "none of these".
- It reads {t.max_length} tokens ({t.truncation}); {cut} of the texts are longer.{_weakest(e)}
- Its confidence is off by {s.ece:.3f} on average (calibration error).{_temperature(e)}
- Labels and texts were not checked by a person; biases in them are in the model.

## How to get it back

In its repository, `dagobert inspect PATH` names the commit that holds this model and everything it was made of.
`dagobert restore COMMIT` gets it back (after `dvc pull`, if the bytes lie in a remote); `dagobert reproduce COMMIT` makes it
again in a clone and compares every byte.

{_lineage(story.files)}"""


def _not_selected(data: Mapping[str, Any]) -> str:
    left_out = data.get("rows_not_selected", 0)
    return f" {left_out:,} left out by `data.where`," if left_out else ""


def _weakest(e: Evaluation) -> str:
    large = [s for kind in e.slices.values() for s in kind if s.n >= _LARGE]
    if not large:
        return ""
    worst = min(large, key=lambda s: s.accuracy)
    return (
        f"\n- Weakest slice of at least {_LARGE} test rows: {_cell(worst.name)}, {percent(worst.accuracy)} "
        f"({span(worst.interval)})."
    )


def _baseline(e: Evaluation) -> str:
    if e.baseline_scores is None or e.comparison is None or e.baseline is None:
        return ""
    return (
        f"\n{e.baseline.description} on the same rows: accuracy {percent(e.baseline_scores.accuracy)}, "
        f"macro F1 {e.baseline_scores.classes.macro_f1:.3f}.\n"
    )


def _temperature(e: Evaluation) -> str:
    c = e.calibration
    return "" if c is None else f" Logits divided by {c.temperature:.2f}, fitted on validation rows, would make it {c.ece:.3f}."


def _lineage(files: Any) -> str:
    if not files:
        return ""
    lines = [f"| {_cell(name)} | `{digest}` |" for name, digest in files]
    return "| file | SHA-256 |\n|---|---|\n" + "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _slug(source: str) -> str:
    words = re.findall(r"[a-z0-9]+", source.lower().removeprefix("package://"))
    return "-".join(words[:8]) or "local"


def _line(text: str) -> str:
    """Text on one line, without what Markdown or HTML would act on."""
    return re.sub(r"\s+", " ", re.sub(r"[`<>|]", " ", text)).strip()


def _cell(text: str) -> str:
    return re.sub(r"([\\*_\[\]#])", r"\\\1", _line(text))
