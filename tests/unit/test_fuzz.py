"""A few hundred of the cases of `make fuzz`, and that the checks would notice what they are for."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import cases, driver
from tests.fuzz.counting import csv_records, json_records


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_generated_files_lose_nothing(first: int, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = driver.base_parameters(repository)
    with driver.no_fsync():
        for seed in range(first, first + 50):
            driver.run(cases.make(seed), base)


@pytest.mark.parametrize("number", range(len(cases.NASTIES)))
def test_nasties(number: int, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with driver.no_fsync():
        driver.run(cases.NASTIES[number](random.Random(0)), driver.base_parameters(repository))


def test_a_wrong_count_and_a_refusal_are_noticed(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = driver.base_parameters(repository)
    with driver.no_fsync():
        with pytest.raises(driver.Failure, match="2 rows read where 3 were counted"):
            driver.run(cases.Case("wrong", {"a.csv": b"text,label\nx,1\ny,0\n"}, 3, True), base)
        with pytest.raises(driver.Failure, match="refused, though it is in order"):
            driver.run(cases.Case("refused", {"a.csv": b"review,label\nx,1\n"}, 1, True), base)


def test_counting_by_hand() -> None:
    # header; "a<line break>b" is one record; an empty line is none; a lone quote is one line; the last line has no end
    assert csv_records('text,label\n"a\nb",1\n\n"open,1\nx,0', ",") == (["text", "label"], 3)
    assert csv_records('"te""xt",label\r\n"x"y,1\rz,2', ",") == (['te"xt', "label"], 2)
    assert csv_records("", ",") == (None, 0)
    assert json_records("{}\n\n  \r\n[1]\r{}") == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**40))
def test_a_seed_always_makes_the_same_case(seed: int) -> None:
    assert cases.make(seed) == cases.make(seed)
