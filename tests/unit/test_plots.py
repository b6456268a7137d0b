from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from dagobert import plots

NASTY = ["a", "<b>&\"'", "$x_1$", "日本語", "a" * 60]


def confusion(n: int) -> str:
    found = plots.confusion(np.eye(n, dtype=np.int64) * 10 + 1, [NASTY[i % len(NASTY)] + str(i) for i in range(n)], "Confusion")
    assert found is not None
    return found


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert confusion(3) == confusion(3)


def test_colours_come_from_the_page_and_nothing_from_elsewhere() -> None:
    svg = confusion(3)
    assert "http" not in svg
    assert not re.search(r": #0[0-9]0[0-9]0[0-9]", svg)
    assert "var(--s1)" in svg
    assert "currentColor" in svg
    assert "DejaVu" not in svg
    assert "<script" not in svg


@pytest.mark.parametrize("n", [2, 5, 13])
def test_any_label_is_text_and_the_picture_is_well_formed(n: int) -> None:
    root = ElementTree.fromstring(confusion(n).replace("xlink:href", "href"))
    texts = [t.text for t in root.iter("text")]
    assert any(t and t.startswith("<b>&") for t in texts)
    if n > 2:
        assert any(t and t.startswith("$x_1$") for t in texts)


def test_too_many_classes_are_no_picture() -> None:
    assert plots.confusion(np.eye(31, dtype=np.int64), [str(i) for i in range(31)], "x") is None


def test_ids_of_two_pictures_do_not_meet() -> None:
    x = np.linspace(0, 1, 5)
    ids = [set(re.findall(r'id="([^"]+)"', plots.curves(name, [("a", x, x)], ("x", "y"), name))) for name in ("roc", "pr")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_length_bins_count_every_text_once() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 700, 1000)
    lengths[0] = 100_000
    edges, rows = plots.length_bins(lengths)
    assert rows.sum() == 1000
    assert len(rows) <= 41
    assert edges[1] in {1, 2, 5, 10, 20, 50}  # a round width
    assert rows[0] == (lengths < edges[1]).sum()
    assert plots.length_bins(np.zeros(0, dtype=np.int64))[1].sum() == 0


def test_pictures_of_next_to_nothing() -> None:
    nothing = np.array([np.nan, np.nan])
    plots.reliability(nothing, nothing, np.array([0, 0]), 0.5, "no rows")
    plots.coverage(np.array([1.0]), np.array([0.0]), "one row")
    plots.loss_curves({"validation": (np.array([1.0]), np.array([0.5]))}, "one point")
    plots.intervals("one", [("this", 1.0, 0.2, 1.0)], "one row", chance=0.9)
