from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tasks import service
from tasks.errors import StageError
from tasks.scoring import verdict
from tasks.workplace import Workplace


def found(n: int, difference: float, p: float) -> dict[str, Any]:
    return {
        "n": n,
        "accuracy_difference": difference,
        "mcnemar_mid_p": p,
        "candidate_accuracy": 0.9,
        "incumbent_accuracy": 0.9 - difference,
    }


@pytest.mark.parametrize(
    ("figures", "promoted", "words"),
    [
        ({}, True, "no model was in service"),
        (found(1000, 0.02, 0.01), True, "better: +2.0 points on 1,000 held-out rows (p = 0.01): 90.0% against 88.0%"),
        (found(1000, 0.02, 0.06), False, "no more than chance"),
        (found(1000, -0.02, 0.01), False, "worse"),
        (found(29, 0.2, 0.01), False, "only 29 held-out rows"),
    ],
)
def test_only_what_is_better_by_more_than_chance_is_promoted(figures: dict[str, Any], promoted: bool, words: str) -> None:
    assert verdict(figures) == (promoted, verdict(figures)[1])
    assert words in verdict(figures)[1]


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A candidate made of rows `abc`, kept when the model in service was `old`."""
    place = Workplace(root=tmp_path / "clone", origin=tmp_path, revision="f" * 40)
    monkeypatch.setattr(service, "in_service", lambda origin: "old")
    monkeypatch.setattr("tasks.dvc.git", lambda *_: "stages: {clean: {outs: [{path: data/clean.parquet, md5: xyz}]}}")
    monkeypatch.setattr("tasks.dvc.locked_outs", lambda *_: {"data/clean.parquet": "abc"})
    service.remember(place, "old", "brave-otter", "worse")
    return place


def test_what_was_judged_is_not_judged_again(judged: Workplace) -> None:
    known = service.judged_before(judged)
    assert known is not None
    assert known.startswith("brave-otter was made from the same rows and kept on ")


def test_another_model_in_service_or_other_rows_are_judged_anew(judged: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "in_service", lambda origin: "new")
    assert service.judged_before(judged) is None
    monkeypatch.setattr(service, "in_service", lambda origin: "old")
    (judged.origin / service.JUDGED).write_text("{damaged")
    assert service.judged_before(judged) is None


BETTER = "dagobert promote: x was not put in production:\n  better: judged on different rows"


@pytest.mark.parametrize(
    ("words", "refused", "overruled"),
    [
        (BETTER, [], True),
        (f"{BETTER}\n  calibration: calibration error 0.1 → 0.2", ["calibration: calibration error 0.1 → 0.2"], False),
        (f"{BETTER}\n  model: a.safetensors is damaged", ["model: a.safetensors is damaged"], False),
    ],
)
def test_only_the_comparison_is_overruled(
    judged: Workplace, monkeypatch: pytest.MonkeyPatch, words: str, refused: list[str], overruled: bool
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], *_: object) -> None:
        commands.append(command)
        if "--because" not in command:
            raise StageError(words)

    monkeypatch.setattr(service, "run_command", run)
    monkeypatch.setattr(service, "get_run_logger", lambda: None)
    assert service.ask_gate(judged, "x", "better on common rows") == refused
    assert ("--because" in commands[-1]) is overruled


def test_a_promotion_that_could_not_be_tried_fails(judged: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> None:
        raise StageError("a promotion is signed: git config user.name")

    monkeypatch.setattr(service, "run_command", run)
    monkeypatch.setattr(service, "get_run_logger", lambda: None)
    with pytest.raises(StageError, match="signed"):
        service.ask_gate(judged, "x", "better")


def test_reasons_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, str]] = []
    monkeypatch.setattr(service, "create_markdown_artifact", lambda **values: made.append(values))
    service.show_judgement("<b>x</b>", "Kept", ["worse", "data: <img src=x> [a](http://b)"], {"n": 3})
    text = made[0]["markdown"] + made[0]["description"]
    assert not set(re.findall(r"<\w+|\]\(", text))
    assert r"data\: &lt;img src=x&gt; \[a\]\(http\://b\)" in text
