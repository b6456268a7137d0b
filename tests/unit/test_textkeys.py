from __future__ import annotations

import string
import unicodedata

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from dagobert.textkeys import exact_keys, normalized_keys, sketch_keys

TEXTS = st.lists(st.text(st.sampled_from(list("aAéÉ日 \t\n.,!-$+😀\u2003«»")), max_size=6), max_size=12)


def bare(text: str) -> str:
    """Lower case, without punctuation and white space; a text of nothing else stays itself."""
    kept = [c for c in text.lower() if not c.isspace() and not unicodedata.category(c).startswith(("P", "Z"))]
    return "".join(kept) or text


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_keys_agree_exactly_where_the_texts_do(texts: list[str]) -> None:
    array = pa.array(texts, pa.string())
    exact, normalized = exact_keys(array).tolist(), normalized_keys(array).tolist()
    for i, one in enumerate(texts):
        for j, other in enumerate(texts):
            assert (exact[i] == exact[j]) == (one == other)
            assert (normalized[i] == normalized[j]) == (bare(one) == bare(other))


def test_ascii_by_table_and_the_rest_by_expression_agree() -> None:
    text = string.printable + "".join(map(chr, range(128)))
    ascii_key, other = normalized_keys(pa.array([text, text + "«"])).tolist()
    assert ascii_key == other


def test_slices_chunks_and_null() -> None:
    texts = pa.array(["x", "Good!", None, "good", ""])
    assert normalized_keys(texts.slice(1, 3)).tolist()[0] == normalized_keys(texts)[3]
    assert exact_keys(texts)[2] == exact_keys(texts)[4]
    assert exact_keys(pa.chunked_array([["a"], ["b"]])).tolist() == exact_keys(pa.array(["a", "b"])).tolist()
    assert len(exact_keys(pa.array([], pa.string()))) == 0


LONG = st.lists(
    st.tuples(st.text(st.sampled_from(list("aé日 ")), max_size=3), st.sampled_from([1, 40, 200])).map(
        lambda part: part[0] * part[1]
    ),
    max_size=3,
).map("".join)


@settings(max_examples=50, deadline=None)
@given(LONG, LONG, st.integers(0, 100), st.sampled_from([" ", "!?" * 100, ""]))
def test_the_same_normalised_key_means_the_same_sketch(text: str, other: str, at: int, noise: str) -> None:
    texts = pa.array([text, text[:at] + noise + text[at:].upper(), other])
    normalized, sketch = normalized_keys(texts).tolist(), sketch_keys(texts).tolist()
    for i in range(3):
        for j in range(3):
            assert normalized[i] != normalized[j] or sketch[i] == sketch[j]
