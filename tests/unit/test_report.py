from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from dagobert import report
from dagobert.baseline import Baseline
from dagobert.evaluation import Evaluation, TestRows, judge
from dagobert.report import Story, TokenFigures

NASTY = "</style><script>alert(1)</script><img src=x onerror=alert(2)> \u202egnp.exe\x07 {{ 7 * 7 }} \"'&"


def make(n_classes: int = 2, n: int = 60, *, baseline: bool = True, multi: bool = False, good: float = 3.0) -> Evaluation:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, n_classes, n)
    answers = labels[:, None] == np.arange(n_classes)
    logits = rng.normal(0, 1, (n, n_classes)) + good * answers
    names = [f"class {i} <b>" for i in range(n_classes)]
    rows = TestRows(np.arange(n), answers, [NASTY] * n, np.full(n, 30), ["<i>.csv"] * n, np.arange(n))
    weak = rng.normal(0, 1, (n, n_classes)) + 1.0 * answers
    other = Baseline(np.exp(weak) / np.exp(weak).sum(axis=1, keepdims=True), "a baseline", 5, ("a note",)) if baseline else None
    validation = None if multi else (logits[:20], labels[:20])
    return judge(
        rows,
        logits,
        names,
        multi=multi,
        max_length=64,
        level=0.95,
        bins=10,
        resamples=200,
        baseline=other,
        validation=validation,
    )


def story(**changes: Any) -> Story:
    values: dict[str, Any] = {
        "level": 0.95,
        "data": {
            "rows_read": 100,
            "rows_not_selected": 5,
            "rows_out": 90,
            "rows_quarantined": 5,
            "quarantined_by_reason": {"empty_text": 4, "duplicate": 1},
            "labels": {"<b>": 50, "b": 40},
            "examples": {"duplicate": [{"file": "a", "line": 3, "label": "1", "text": NASTY, "detail": NASTY}]},
        },
        "split": {"sizes": {"train": 20, "test": 60}, "classes": {"<b>": {"train": 1, "test": 2}}, "warnings": [NASTY]},
        "training": {"best_step": 2, "validation": [{"step": 2, "epoch": 1, "loss": 0.5, "accuracy": 0.8, "macro_f1": 0.8}]},
        "loss": {"training": (np.arange(30.0), np.ones(30)), "validation": (np.array([2.0]), np.array([0.5]))},
        "tokens": TokenFigures(np.arange(3, 93), 64, "head+tail", 29, 400, 5000, 7),
        "parameters": {"train": [("seed", NASTY, "a seed")]},
        "lineage": {"threads": "2"},
        "files": [("data/tokens", "1" * 64)],
    }
    return Story(**(values | changes))


class Page(HTMLParser):
    """Tags, attributes and links of a page; fails where one is not closed in turn."""

    VOID = frozenset({"meta", "br", "img", "hr", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text() -> str:
    return report.render(make(), story())


def test_the_page_needs_nothing_and_runs_nothing(text: str) -> None:
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "img", "form", "base"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"src", "href", "xlink:href", "action"}:
                assert value is not None
                assert value.startswith("#"), (tag, value)
    assert not re.search(r"url\((?!#)", text)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_text_from_the_data_is_text(text: str) -> None:
    assert "alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    assert "\u202e" not in text
    assert "⟨U+202E⟩" in text
    assert "\x07" not in text
    assert "␇" in text
    assert "class 0 &lt;b&gt;" in text


def test_links_within_the_page_lead_somewhere(text: str) -> None:
    page = Page(text)
    ids = {a["id"] for _, a in page.tags if "id" in a}
    links = {(a["href"] or "")[1:] for t, a in page.tags if t == "a" and "href" in a}
    assert links
    assert links <= ids


def test_the_same_inputs_give_the_same_bytes(text: str) -> None:
    assert report.render(make(), story()) == text


@pytest.mark.parametrize(
    ("n_classes", "multi", "baseline"), [(3, False, True), (2, False, False), (40, False, True), (3, True, True)]
)
def test_other_problems_have_their_page(n_classes: int, multi: bool, baseline: bool) -> None:
    Page(report.render(make(n_classes, baseline=baseline, multi=multi), story(loss={}, training={}, split={}, lineage={})))


def test_the_verdict_comes_first_and_is_honest(text: str) -> None:
    good, bad = make(good=5.0, n=300), make(good=-1.0, n=300)
    assert report.verdict(good, 0.95).kind == "good"
    assert report.verdict(bad, 0.95).kind == "bad"
    assert "use the simpler model" in report.verdict(bad, 0.95).detail
    assert report.verdict(make(good=1.0, n=50), 0.95).kind == "unclear"
    assert report.verdict(make(baseline=False), 0.95).kind == "plain"
    assert text.index("The model is right on") < text.index("<nav")


def test_a_class_without_test_rows_is_named() -> None:
    e = make(3)
    only = judge(
        TestRows(e.rows.row_ids, np.eye(3, dtype=bool)[[0] * 60], e.rows.texts, e.rows.tokens, ["a"] * 60, e.rows.source_lines),
        np.tile([1.0, 0.5, 0.0], (60, 1)),
        ["a", "b", "c"],
        max_length=64,
        level=0.95,
        bins=5,
        resamples=100,
    )
    assert "No test row belongs to b, c" in report.render(only, story())


def test_every_mistake_shown_is_one() -> None:
    perfect = make(good=50.0)
    assert "every test row was classified right" in report.render(perfect, story())


@pytest.mark.parametrize(("value", "shown"), [(0.032, "+3.2"), (-0.1, "−10.0"), (0.0001, "0.0"), (-0.0001, "0.0")])
def test_differences_carry_their_sign(value: float, shown: str) -> None:
    assert report.signed(value) == shown


def test_small_p_values_are_not_called_zero() -> None:
    assert report.p_value(0.0) == "< 0.001"
    assert report.p_value(0.034) == "= 0.034"


def test_long_text_is_cut_at_a_space() -> None:
    assert report.clip("one two three", 9) == "one two …"
    assert report.clip("x" * 20, 9) == "x" * 9 + " …"
    assert len(report.visible("word " * 10_000)) <= report.LONGEST_TEXT + 2
