from __future__ import annotations

import json
from dataclasses import replace
from math import sqrt

import pytest

from dagobert.verdicts import (
    EXIT_CODES,
    Fault,
    FileResult,
    MetricResult,
    Report,
    StageResult,
    compare_metrics,
    judge,
    markdown,
    text,
    tolerance,
)

TRAINING = frozenset({"train", "evaluate"})
CLOSE = (MetricResult("test.accuracy", 0.9, 0.91, 0.02),)
FAR = (MetricResult("test.accuracy", 0.9, 0.5, 0.02),)
OTHER = {"threads": (2, 4)}


def stages(**outcomes: str) -> tuple[StageResult, ...]:
    return tuple(StageResult(name, outcome) for name, outcome in outcomes.items())  # type: ignore[arg-type]


def test_all_outputs_equal_is_identical_whatever_the_machine() -> None:
    assert judge(stages(fetch="input", train="identical"), TRAINING, FAR, OTHER, ()) == ("identical", None)


def test_training_that_differs_on_another_machine() -> None:
    found = stages(clean="identical", train="different", evaluate="different")
    assert judge(found, TRAINING, CLOSE, OTHER, ()) == ("within tolerance", "train")
    assert judge(found, TRAINING, FAR, OTHER, ()) == ("different", "train")
    assert judge(found, TRAINING, CLOSE, {}, ()) == ("different", "train")
    assert judge(found, TRAINING, (), OTHER, ()) == ("different", "train")  # no figure could be compared


@pytest.mark.parametrize(
    ("kind", "word"),
    [*((kind, "different") for kind in ("code", "parameter", "command", "chain")), ("file", "within tolerance")],
)
def test_what_the_record_is_blamed_for(kind: str, word: str) -> None:
    assert judge(stages(train="different"), TRAINING, CLOSE, OTHER, (Fault("train", kind, "…"),))[0] == word


def test_a_stage_before_training_has_no_tolerance() -> None:
    assert judge(stages(clean="different", train="different"), TRAINING, CLOSE, OTHER, ()) == ("different", "clean")


def test_a_stage_that_failed() -> None:
    assert judge(stages(clean="identical", train="failed", evaluate="not run"), TRAINING, (), {}, ()) == ("cannot run", "train")
    assert judge(stages(clean="different", train="failed"), TRAINING, (), OTHER, ()) == ("different", "clean")
    assert judge(stages(train="different", evaluate="failed"), TRAINING, (), OTHER, ()) == ("different", "train")


def test_tolerances() -> None:
    recorded = {"test.n": 100, "test.accuracy": 0.9, "test.per_class.a.f1": 0.8, "test.per_class.a.support": 25}
    # 1.96·sqrt(0.9·0.1/100) = 0.0588
    assert tolerance("test.accuracy", 0.9, recorded, {}) == pytest.approx(0.0588)
    assert tolerance("test.accuracy_low", 0.9, recorded, {}) == pytest.approx(0.0588)
    assert tolerance("test.per_class.a.f1", 0.8, recorded, {}) == pytest.approx(1.96 * sqrt(0.8 * 0.2 / 25))
    assert tolerance("test.n", 100, recorded, {}) == 0
    assert tolerance("test.log_loss", 0.3, recorded, {}) == 0.05
    assert tolerance("test.ece_at_temperature", 0.3, recorded, {}) == 0.03
    assert tolerance("test.p_value", 0.3, recorded, {}) is None
    assert tolerance("test.accuracy", 0.9, recorded, {"accuracy": 0.01}) == 0.01
    # a perfect score still has an interval: it counts as one wrong row
    assert tolerance("test.accuracy", 1.0, recorded, {}) == pytest.approx(1.96 * sqrt(0.99 * 0.01 / 100))


def test_metrics_that_are_gone_or_of_other_rows() -> None:
    recorded = {"test.n": 100, "test.accuracy": 0.9, "name": "x", "flag": True}
    found = {m.name: m for m in compare_metrics(recorded, {"test.n": 99}, {})}
    assert set(found) == {"test.n", "test.accuracy"}
    assert not found["test.n"].within
    assert not found["test.accuracy"].within
    assert not any(m.within for m in compare_metrics(recorded, None, {}))


def full_report() -> Report:
    return Report(
        "main",
        "0123456789abcdef",
        "different",
        stages=(
            StageResult("clean", "identical", 1.25, (FileResult("data/clean.parquet", "a", "a"),)),
            StageResult(
                "train", "different", 60.0, (FileResult("models/finetuned", "a", "b", ("model.safetensors: 2 tensors",)),)
            ),
            StageResult("evaluate", "failed", words=("no memory",)),
        ),
        metrics=FAR,
        fingerprint={"threads": (2, 4)},
        environment={"torch": ("2.13.0", None)},
        faults=(Fault("train", "code", "train: other code"),),
        notes=("a note",),
        first="train",
        causes=("train: other code",),
    )


def test_the_report_says_all_of_it_on_a_terminal_and_as_markdown() -> None:
    report = full_report()
    for shown in (text(report), markdown(report)):
        for words in (
            "different, first in",
            "0 of 1",
            "models/finetuned: model.safetensors: 2 tensors",
            "test.accuracy: 0.9 → 0.5, outside ±0.02",
            "threads: 2 → 4",
            "torch: 2.13.0 → not there",
            "a note",
            "no memory",
        ):
            assert words in shown
    assert "| train | different | 0 of 1 | 60.0 |" in markdown(report)


def test_words_of_a_stage_are_never_markup() -> None:
    words = ("<img src=x onerror=alert(1)>", "[click](http://evil.example) *now*", "# a | b_c", "- see www.evil.example\x1b[2J")
    shown = markdown(replace(full_report(), stages=(StageResult("train", "failed", words=words),)))
    assert shown.split("### Last words\n\n")[1].splitlines()[:4] == [
        "- &lt;img src=x onerror=alert(1)&gt;",
        r"- \[click\](http:\//evil.example) \*now\*",
        r"- \# a \| b\_c",
        r"- \- see www\.evil.example \[2J",
    ]


def test_the_report_is_json_with_an_exit_code() -> None:
    values = json.loads(json.dumps(full_report().as_json(), allow_nan=False))
    assert values["exit_code"] == 1
    assert EXIT_CODES == {"identical": 0, "within tolerance": 0, "different": 1, "cannot run": 2}
