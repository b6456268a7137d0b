from __future__ import annotations

import string
import unicodedata

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from dagobert.textkeys import exact_keys, normalized_keys

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
