from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dagobert import tables


@pytest.mark.parametrize("cell", ["=1+1", "+SUM(A1)", "-cmd", "@x", "\tx", "\rx", "-", "+"])
def test_formulas_are_guarded(cell: str) -> None:
    assert tables.guarded(cell) == "'" + cell


@pytest.mark.parametrize("cell", ["-1", "+2.5", "-1e-3", "plain", "", "a=b"])
def test_numbers_and_plain_text_are_not(cell: str) -> None:
    assert tables.guarded(cell) == cell


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    tables.write_csv(path, ("name", "value"), [('a "quoted"\nlabel, here', 1 / 3), ("=x", 2)])
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["name", "value"], ['a "quoted"\nlabel, here', "0.333333"], ["'=x", "2"]]
