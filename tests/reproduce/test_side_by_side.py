"""Comparing recorded experiments."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagobert.errors import RepositoryError
from dagobert.repository import Repository
from dagobert.side_by_side import picture, side_by_side, text
from tests.reproduce import handmade, toy

TEXTS = [f"text number {i}" for i in range(100)]
LABELS = ["neg" if i % 2 else "pos" for i in range(100)]
SIDES = ["test" if i < 40 else "train" for i in range(100)]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = handmade.make(tmp_path_factory.mktemp("side-by-side") / "repository")
    poor = [i >= 20 for i in range(40)]
    good = [i >= 2 for i in range(40)]
    for name, right, params in (
        ("poor", poor, {"seed": 1}),
        ("good", good, {"seed": 2}),
        ("chance", [*poor[1:], False], {"seed": 3}),
    ):
        handmade.record(made, handmade.result(TEXTS, LABELS, SIDES, right), params, name)
        toy.git(made.root, "tag", name)
    # the same rows read in another order, two added, another test side
    texts = ["new a", "new b", *reversed(TEXTS)]
    labels = ["pos", "neg", *reversed(LABELS)]
    sides = ["test", "test", *reversed(SIDES)]
    handmade.record(made, handmade.result(texts, labels, sides, [True] * 42), {"seed": 2}, "more data")
    toy.git(made.root, "tag", "more")
    return made


def test_better_and_not_by_chance(repository: Repository) -> None:
    (pair,) = side_by_side(repository, ["poor", "good"])
    assert pair.params == {"train.seed": (1, 2)}
    assert (pair.rows_added, pair.rows_removed, pair.same_test_rows) == (0, 0, True)
    # 18 rows only the other got right, none only the first: McNemar mid-p = 2·½·2^-18 = 2^-18
    assert (pair.test["only_other_right"], pair.test["only_first_right"]) == (18, 0)
    assert pair.test["mcnemar_mid_p"] == pytest.approx(2**-18, abs=1e-6)
    assert pair.test["accuracy_difference"] == pytest.approx(18 / 40)
    assert "good is better than poor, and not by chance." in text([pair])


def test_several_against_the_first_with_a_picture(repository: Repository, tmp_path: Path) -> None:
    pairs = side_by_side(repository, ["poor", "good", "chance"])
    assert [pair.other for pair in pairs] == ["good", "chance"]
    assert "No difference that could not be chance." in text(pairs[1:])
    picture(pairs, tmp_path / "pairs.png")
    assert (tmp_path / "pairs.png").read_bytes().startswith(b"\x89PNG")


def test_other_held_out_rows_are_refused_unless_told(repository: Repository) -> None:
    with pytest.raises(RepositoryError, match=r"different rows \(40 and 42, 40 in common\)"):
        side_by_side(repository, ["good", "more"])
    (pair,) = side_by_side(repository, ["good", "more"], common_rows=True)
    assert (pair.rows_added, pair.rows_removed, pair.same_test_rows) == (2, 0, False)
    assert pair.test["n"] == 40
    assert pair.test["only_other_right"] == 2


def test_a_missing_result_says_how_to_get_it(repository: Repository) -> None:
    entry = repository.lock("good").outs["reports/predictions.parquet"]
    path = repository.cache.path(entry.md5)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(RepositoryError, match="not in the cache"):
        side_by_side(repository, ["poor", "good"])
    path.write_bytes(content)
