from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagobert.errors import RepositoryError
from dagobert.lockfile import flatten, inside, parameter, parse_data_file, parse_graph, parse_lock

LOCK = """\
schema: '2.0'
stages:
  last:
    cmd: b
    deps:
    - {path: data/middle/part, hash: md5, md5: aa, size: 1}
    outs:
    - {path: model, hash: md5, md5: cc.dir, size: 3, nfiles: 1}
  first:
    cmd:
    - a
    - aa
    deps:
    - {path: code.py, hash: md5, md5: dd, size: 1}
    params:
      params.yaml:
        rate: 3e-05
        section: {seed: 1}
    outs:
    - {path: data/middle, hash: md5, md5: bb.dir, size: 2, nfiles: 1}
"""


def test_a_lock_knows_who_feeds_whom() -> None:
    lock = parse_lock(LOCK)
    assert lock.order() == ["first", "last"]
    assert lock.producer("data/middle/part") == "first"
    assert lock.producer("data/middle2") is None
    assert lock.upstream("last") == {"first"}
    assert lock.downstream("first") == {"first", "last"}
    assert lock.stages["first"].command == "a\naa"
    assert lock.stages["first"].params == {"params.yaml": {"rate": 3e-5, "section": {"seed": 1}}}
    assert lock.outs["model"].is_directory


def test_an_empty_lock_and_a_broken_one() -> None:
    assert parse_lock("").stages == {}
    with pytest.raises(RepositoryError, match="not valid YAML"):
        parse_lock("stages: [")
    with pytest.raises(RepositoryError, match="expected a mapping"):
        parse_lock("- 1")


def test_a_circle_is_an_error() -> None:
    text = "stages: {a: {cmd: x, deps: [{path: q, md5: z}], outs: [{path: p, md5: z}]}, "
    text += "b: {cmd: x, deps: [{path: p, md5: z}], outs: [{path: q, md5: z}]}}"
    with pytest.raises(RepositoryError, match="feed each other in a circle"):
        parse_lock(text).order()


def test_flags_with_templates() -> None:
    graph = parse_graph(
        "stages:\n  a:\n    cmd: run ${data.path}\n    outs:\n    - ${data.path}/x: {cache: false}\n    - y: {persist: true}\n"
        "    - z\n    metrics:\n    - m.json: {cache: false}\n    - ${unknown}\n",
        {"data": {"path": "here"}},
    )
    assert graph["a"].command == "run here"
    assert graph["a"].uncached == {"here/x", "m.json"}
    assert graph["a"].persisted == {"y"}
    assert graph["a"].metrics == ("m.json", "${unknown}")


def test_data_files_are_relative_to_themselves() -> None:
    (entry,) = parse_data_file("outs:\n- {md5: ab, size: 1, path: own.csv}\n", "data/own.csv.dvc")
    assert (entry.path, entry.md5) == ("data/own.csv", "ab")


def test_inside() -> None:
    assert inside("a/b", "a")
    assert inside("a", "a")
    assert not inside("ab", "a")


nested = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda values: st.dictionaries(st.text("abc", min_size=1, max_size=2), values, min_size=1, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text("xyz", min_size=1, max_size=2), nested, min_size=1, max_size=3))
def test_every_flat_name_leads_to_its_value(values: dict[str, Any]) -> None:
    for name, value in flatten(values).items():
        assert parameter(values, name) == value


def test_a_name_that_leads_nowhere() -> None:
    with pytest.raises(KeyError):
        parameter({"a": 1}, "a.b")
    with pytest.raises(KeyError):
        parameter({"a": {}}, "a.b")
