from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dagobert.errors import LeakageError, SplitError
from dagobert.files import read_json
from dagobert.stages import encode_labels, split
from tests.unit.stages.data import params, write_clean

TEXTS = [f"review number {n} of a film" for n in range(40)]
LABELS = [str(n % 2) for n in range(40)]


@pytest.fixture
def divided(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the stage on given rows; gives sides by row and the report."""
    monkeypatch.chdir(tmp_path)

    def run(texts: list[str] = TEXTS, labels: list[Any] = LABELS, columns: Any = None, **changes: Any) -> tuple[list[str], Any]:
        write_clean(Path("data/clean.parquet"), texts, labels, **(columns or {}))
        chosen = {"split__train_size": 20, "split__validation_size": 4, "split__test_size": 8} | changes
        ours = params(repository, **chosen)
        encode_labels.run(ours)
        split.run(ours)
        table = pq.read_table("data/splits.parquet")
        assert table["row_id"].to_pylist() == list(range(0, 2 * len(texts), 2))
        return table["split"].to_pylist(), read_json(Path("reports/split.json"))

    return run


def test_sides_and_report(divided: Any) -> None:
    sides, report = divided()
    assert report["sizes"] == {"train": 20, "validation": 4, "test": 8, "unused": 8}
    assert {side: sides.count(side) for side in set(sides)} == report["sizes"]
    assert report["classes"]["negative"] == {"train": 10, "validation": 2, "test": 4, "unused": 4}
    assert report["class_weights"] == {"negative": 1.0, "positive": 1.0}
    assert report["warnings"] == []
    assert divided()[0] == sides
    assert divided(split__seed=43)[0] != sides


def test_duplicates_stay_on_one_side_however_they_are_written(divided: Any) -> None:
    texts = TEXTS.copy()
    texts[7], texts[19], texts[31] = "A great film!", "a  GREAT film", "A great, film."
    for seed in range(10):
        sides, report = divided(texts, split__seed=seed)
        assert len({sides[7], sides[19], sides[31]}) == 1
    assert report["rows_kept_together"] == 2


LONG = " ".join(f"word{n}" for n in range(200))


def test_near_duplicates_on_two_given_sides_are_reported_with_their_places(
    divided: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("dagobert.events.warn", said.append)
    texts = [*TEXTS[:38], f"{LONG} end", f"{LONG} stop"]
    given = ["train"] * 20 + ["validation"] * 10 + ["test"] * 9 + ["train"]
    how = {"columns": {"part": given}, "split__strategy": "given", "split__column": "part"}
    _, report = divided(texts, **how)
    # 199 of 201 different word triples in common: 0.99
    near = report["near_duplicates"]
    assert (near["across_sides"], near["kept_together"]) == (1, 0)
    assert near["examples"][0] == {
        "a": "reviews.csv:40",
        "a_side": "test",
        "b": "reviews.csv:41",
        "b_side": "train",
        "share": near["examples"][0]["share"],
    }
    assert near["examples"][0]["share"] == pytest.approx(0.99, abs=0.03)
    assert said == [
        line for line in report["warnings"] if "nearly the same text, such as reviews.csv:40 and reviews.csv:41" in line
    ]
    assert divided(texts, **how, split__near_duplicates=None)[1]["near_duplicates"] is None
    given[39] = "test"
    nothing = {"threshold": 0.9, "kept_together": 0, "across_sides": 0, "examples": []}
    assert divided(texts, **how)[1]["near_duplicates"] == nothing


@pytest.mark.parametrize("strategy", ["stratified", "random", "ordered", "kfold"])
def test_near_duplicates_stay_on_one_side(divided: Any, strategy: str) -> None:
    texts = TEXTS.copy()
    groups = [(1, 13, 27, 39), (4, 38), (20, 35)]  # read in order: train and test, train and test, validation and test
    for name, rows in zip("abc", groups, strict=True):
        for row in rows:
            texts[row] = f"{LONG} {name * 3} {LONG} {name} ends {row}".replace("word1", name)
    how = {"split__strategy": strategy, "split__train_size": "all"}
    apart = together = 0
    for seed in range(4):
        sides, _ = divided(texts, **how, split__seed=seed, split__near_duplicates=None)
        apart += sum(len({sides[row] for row in rows}) > 1 for rows in groups)
        sides, report = divided(texts, **how, split__seed=seed)
        assert [len({sides[row] for row in rows}) for rows in groups] == [1, 1, 1]
        near = report["near_duplicates"]
        assert near["across_sides"] == 0
        assert all(pair["a_side"] == pair["b_side"] for pair in near["examples"])
        together += near["kept_together"]
    assert apart  # without looking, they do end on two sides
    assert together


def test_near_duplicates_belong_together_in_every_fold(divided: Any) -> None:
    texts = [*TEXTS[:36], *(f"{LONG} {word}" for word in ("end", "stop", "fin", "over"))]
    tested = []
    for fold in range(5):
        how = {"split__strategy": "kfold", "split__train_size": "all", "split__fold": fold}
        sides, _ = divided(texts, **how)
        assert len(set(sides[36:])) == 1
        tested += [row for row, side in enumerate(sides) if side == "test"]
    assert sorted(tested) == list(range(40))


def test_all_rows_can_be_compared_however_few(tmp_path: Path) -> None:
    write_clean(tmp_path / "clean.parquet", [f"{LONG} end", "other", "another", f"{LONG} stop"], ["0"] * 4)
    assert [pair for _, *pair in split.near_pairs(tmp_path / "clean.parquet", None, 0.9)] == [[0, 3]]


def test_pairs_of_texts_are_compared_as_pairs(divided: Any) -> None:
    texts = [LONG] * 40  # one premise, forty hypotheses
    pairs = [" ".join(f"{row}x{n}" for n in range(200)) for row in range(40)]
    _, report = divided(texts, columns={"text_pair": pairs}, split__near_duplicates=0.5)
    assert report["near_duplicates"]["kept_together"] == 0
    assert report["sizes"] == {"train": 20, "validation": 4, "test": 8, "unused": 8}


def test_a_sorted_file_read_in_order_is_warned_of(divided: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("dagobert.events.warn", said.append)
    _, report = divided(labels=["0"] * 20 + ["1"] * 20, split__strategy="ordered", split__train_size="all")
    assert "the train side has no row of" not in said[0]
    assert said[0] == "the validation side has no row of 'negative'"
    assert any("sorted by label" in line for line in said)
    assert report["warnings"] == said


def test_too_few_rows(divided: Any) -> None:
    with pytest.raises(SplitError, match="20 train \\+ 4 validation \\+ 8 test = 32 rows, but the data has 30"):
        divided(TEXTS[:30], LABELS[:30])
    with pytest.raises(SplitError, match="the train side got no row: 40 rows in 1 groups of equal or nearly equal text"):
        divided(["same"] * 40, split__strategy="random")


def test_groups_stay_together(divided: Any) -> None:
    authors = [f"author {n % 10}" for n in range(39)] + [None]
    sides, _ = divided(columns={"author": authors}, split__group="author", split__strategy="random")
    for author in set(authors[:39]):
        assert len({side for side, name in zip(sides, authors, strict=True) if name == author}) == 1


def test_by_time_the_newest_rows_test(divided: Any) -> None:
    days = [f"20{60 - n}-01-31" for n in range(40)]
    sides, _ = divided(columns={"day": days}, split__column="day", split__strategy="time", split__train_size="all")
    assert sides == ["test"] * 8 + ["validation"] * 4 + ["train"] * 28


def test_times_are_ordered_as_times_not_as_text(divided: Any) -> None:
    how = {"split__column": "day", "split__strategy": "time", "split__train_size": "all"}
    sides, _ = divided(columns={"day": [str(n) for n in range(40)]}, **how)  # as text "9" would be last
    assert sides == ["train"] * 28 + ["validation"] * 4 + ["test"] * 8
    sides, _ = divided(columns={"day": [f"2020-01-01T{n // 2:02d}:{n % 2 * 30:02d}:00Z" for n in range(40)]}, **how)
    assert sides == ["train"] * 28 + ["validation"] * 4 + ["test"] * 8
    with pytest.raises(SplitError, match="holds no times that can be ordered, '5 May' first"):
        divided(columns={"day": ["5 May"] * 40}, **how)


def test_a_given_split_is_taken_and_still_gated(divided: Any) -> None:
    given = ["train"] * 20 + ["dev"] * 5 + ["test"] * 15
    sides, _ = divided(columns={"part": given}, split__strategy="given", split__column="part")
    assert sides == ["train"] * 20 + ["validation"] * 5 + ["test"] * 15
    texts = [*TEXTS[:39], TEXTS[0].upper() + "!"]
    with pytest.raises(LeakageError, match=r"reviews\.csv:2 \(train\) and reviews\.csv:41 \(test\)"):
        divided(texts, columns={"part": given}, split__strategy="given", split__column="part")


def test_by_hash_added_rows_move_nobody(divided: Any) -> None:
    shares = {"split__strategy": "hash", "split__train_size": "all", "split__validation_size": 0.2, "split__test_size": 0.2}
    before, _ = divided(**shares)
    after, _ = divided([*TEXTS, *(f"new {n}" for n in range(20))], [*LABELS, *LABELS[:20]], **shares)
    assert after[:40] == before


def test_folds_cover_all_rows(divided: Any) -> None:
    tested = []
    for fold in range(4):
        sides, _ = divided(split__strategy="kfold", split__folds=4, split__fold=fold, split__train_size="all")
        tested += [n for n, side in enumerate(sides) if side == "test"]
        assert sides.count("test") == 10
    assert sorted(tested) == list(range(40))


def test_several_labels_a_row_are_stratified_by_the_rarest(divided: Any) -> None:
    labels = [["a", "b"] if n % 4 == 0 else ["a"] for n in range(40)]
    _, report = divided(labels=labels)
    assert report["classes"]["b"] == {"train": 5, "validation": 1, "test": 2, "unused": 2}


def test_a_strategy_without_its_column(divided: Any) -> None:
    with pytest.raises(SplitError, match=r"split\.strategy is time, which needs split\.column"):
        divided(split__strategy="time")
    with pytest.raises(SplitError, match=r"split\.column is 'day', which .* does not have; it has row_id, text"):
        divided(split__strategy="time", split__column="day")
    with pytest.raises(SplitError, match="2 rows without a time"):
        divided(columns={"day": ["1"] * 38 + [None, None]}, split__strategy="time", split__column="day")
