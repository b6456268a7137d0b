from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagobert.errors import LabelError
from dagobert.labels import LabelMap, class_weights, found_classes, label_map, quoted, split_labels


def test_found_classes_do_not_depend_on_the_rows() -> None:
    assert found_classes(["tech", "business", "Sport", "tech"]) == ("Sport", "business", "tech")
    assert found_classes(["10", "9", "-1", "10"]) == ("-1", "9", "10")
    assert found_classes(["10", "9", "x"]) == ("10", "9", "x")


@given(st.lists(st.text(max_size=5), min_size=1))
def test_found_classes_are_distinct_and_complete(labels: list[str]) -> None:
    found = found_classes(labels)
    assert set(found) == set(labels)
    assert len(set(found)) == len(found)
    assert found == found_classes(list(reversed(labels)))


def test_declared_order_and_names_reach_the_model() -> None:
    made = label_map({"1": 5, "0": 7}, ["1", "0"], {"1": "positive"})
    assert made.id2label == {0: "positive", 1: "0"}
    assert made.label2id == {"positive": 0, "0": 1}
    assert made.encode(pa.array(["0", "1", "1", None, "2"])).to_pylist() == [1, 0, 0, None, None]
    assert made.decode([1, 0]) == ["0", "positive"]
    assert LabelMap.from_json(made.to_json([5, 7])) == made
    assert made.to_json([5, 7])["counts"] == [5, 7]


@pytest.mark.parametrize(
    ("counts", "declared", "names", "message"),
    [
        ({"a": 3}, None, {}, "one class only: 'a'. A classifier needs two or more"),
        ({}, None, {}, "no label at all"),
        ({"a": 3}, ["a"], {}, "labels.classes has one class only"),
        ({"a": 3}, ["a", "b"], {}, r"of the declared classes \('a', 'b'\) the data has 'a' only"),
        ({"a": 3, "b": 1}, ["a", "b", "a"], {}, "holds 'a' more than once"),
        ({"a": 3, "b": 1}, None, {"a": "x", "b": "x"}, "gives 'x' to more than one class"),
        ({"a": 3, "b": 1}, None, {"a": "b"}, "gives 'b' to more than one class"),
    ],
)
def test_useless_maps_are_refused(
    counts: dict[str, int], declared: list[str] | None, names: dict[str, str], message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        label_map(counts, declared, names)


def test_an_unknown_label_later_is_named_with_its_place() -> None:
    made = LabelMap("single_label_classification", ("0", "1"), ("negative", "positive"))
    assert made.encode_known(["0", "positive"], ["f:1", "f:2"]).tolist() == [0, 1]
    with pytest.raises(LabelError, match=r"f:3: label 'neutral' is not one of '0', '1', which the model was trained on"):
        made.encode_known(["0", "neutral"], ["f:2", "f:3"])
    with pytest.raises(LabelError, match="label None"):
        made.encode_known([None], ["f:9"])


def test_labels_in_one_cell_are_parted() -> None:
    found = split_labels(pa.array(["a; b", "b;;b", "", None, " c "]), ";")
    assert found.to_pylist() == [["a", "b"], ["b"], [], [], ["c"]]


def test_class_weights_are_balanced() -> None:
    # 8 rows, 2 classes: 8 / (2 · 2) = 2, 8 / (2 · 6) = 0.666…
    assert class_weights([2, 6]) == [2.0, 0.666667]
    assert class_weights([4, 0]) == [0.5, 0.0]


def test_long_lists_are_cut() -> None:
    assert quoted([str(n) for n in range(22)]).endswith("'19' and 2 more")
