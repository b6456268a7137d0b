from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dagobert import shards
from dagobert.errors import TokenizationError
from dagobert.files import sha256_tree
from dagobert.shardcheck import problems
from dagobert.stages import tokenize
from dagobert.tokens import Tokenization
from tests.unit.stages.data import RECIPE, params, write_clean

TEXTS = [f"{'very ' * n}good film number {n}, not bad é" for n in range(23)]


@pytest.fixture
def tokenized(tmp_path: Path, repository: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the stage in tmp_path; gives a function that changes parameters."""
    monkeypatch.chdir(tmp_path)

    def run(**changes: Any) -> Path:
        Path("data").mkdir(exist_ok=True)
        Path("data/words.txt").write_text("")
        if not Path("data/clean.parquet").exists():
            write_clean(Path("data/clean.parquet"), TEXTS, ["0"] * len(TEXTS), group_size=5)
        chosen = {"model__name_or_path": str(tiny_bert), "tokenize__max_length": 16, "tokenize__rows_per_shard": 10} | changes
        tokenize.run(params(repository, **chosen))
        return Path("data/tokens")

    return run


def test_shards_hold_every_row_in_order(tokenized: Any) -> None:
    out = tokenized()
    store = shards.open_store(out)
    assert store.manifest is not None
    assert [part.n_rows for part in store.manifest.parts] == [10, 10, 3]
    assert store.row_ids.tolist() == list(range(0, 46, 2))
    assert store.manifest.clean == RECIPE
    assert store.manifest.stride is None
    whole = Tokenization(out / "tokenizer", 16, "head+tail").sequences(pa.array(TEXTS))
    assert [store.sequence(i).tolist() for i in range(23)] == [
        whole.input_ids[a:b].tolist() for a, b in zip(whole.offsets[:-1], whole.offsets[1:], strict=True)
    ]
    table = pq.read_table(out / "part-00001.parquet")
    assert table.column_names == ["row_id", "n_tokens", "n_truncated", "n_unknown"]
    assert table["n_truncated"].to_pylist() == whole.n_truncated[10:20].tolist()
    assert problems(out, Path("data/clean.parquet")) == []


def test_bytes_depend_neither_on_engine_nor_on_batches(tokenized: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sha256_tree(tokenized())
    assert sha256_tree(tokenized(tokenize__engine="tokenizers")) == first
    monkeypatch.setattr(tokenize, "_CHUNK", 3)
    assert sha256_tree(tokenized()) == first
    write_clean(Path("data/clean.parquet"), TEXTS, ["0"] * len(TEXTS), group_size=23)
    assert sha256_tree(tokenized()) == first


def test_bytes_do_not_depend_on_the_number_of_threads(tokenized: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import nanotoken

    write_clean(Path("data/clean.parquet"), [text * 400 for text in TEXTS], ["0"] * len(TEXTS))  # units of work are 1 MB
    many = sha256_tree(tokenized())
    encode_batch = nanotoken.Tokenizer.encode_batch
    monkeypatch.setattr(
        nanotoken.Tokenizer, "encode_batch", lambda self, texts, **how: encode_batch(self, texts, **how, parallel=False)
    )
    assert sha256_tree(tokenized()) == many


def test_windows_are_several_sequences_a_row(tokenized: Any) -> None:
    out = tokenized(tokenize__truncation="windows", tokenize__stride=4)
    store = shards.open_store(out)
    assert store.manifest is not None
    assert store.manifest.stride == 4
    assert store.manifest.n_rows == 23
    assert store.manifest.n_sequences == len(store) > 23
    assert not any(pq.read_table(out / f"{part.name}.parquet")["n_truncated"].to_numpy().any() for part in store.manifest.parts)
    assert problems(out, Path("data/clean.parquet")) == []


def test_pairs_are_tokenized_where_there_is_a_second_text(tokenized: Any) -> None:
    write_clean(Path("data/clean.parquet"), ["good film", "bad"], ["0", "1"], text_pair=["happy", "sad sad"])
    store = shards.open_store(tokenized())
    assert store.has_pairs
    types = store.token_types([0, 1])
    assert types is not None
    # [CLS] good film [SEP] happy [SEP], [CLS] bad [SEP] sad sad [SEP]
    assert types.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1]


def test_added_words_reach_the_shards(tokenized: Any, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("number\n")
    out = tokenized(tokenize__add_words="more.txt")
    plain = len(Tokenization(out / "tokenizer", 16, "head").store(pa.array(["number"])).sequence(0))
    assert plain == 3
    manifest = shards.read_manifest(out)
    assert manifest.vocab_size == Tokenization(out / "tokenizer", 16, "head").vocab_size


def test_what_the_model_will_not_see_is_said(tokenized: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("dagobert.events.say", said.append)
    write_clean(Path("data/clean.parquet"), ["good " * 20, "bad é"], ["0", "1"])
    tokenized()
    # [CLS] 20 words [SEP] cut to 16 loses 6 of 22 + 4 tokens; é is known: without its accent it is e
    assert said[1] == "1 rows (50.0%) are cut to 16 tokens, which loses 23.1% of all tokens; 0.00% are unknown words"


def test_max_length_above_the_models(tokenized: Any) -> None:
    with pytest.raises(TokenizationError, match=r"max_length is 65, but .* takes at most 64"):
        tokenized(tokenize__max_length=65)
    assert not Path("data/tokens").exists()


def test_verify_names_every_damaged_shard(tokenized: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from dagobert.cli import main

    out = tokenized()
    assert main(["verify", str(out)]) == 0
    assert "3 shards, 23 rows" in capsys.readouterr().out
    for name in ("part-00000.safetensors", "part-00002.parquet"):
        data = bytearray((out / name).read_bytes())
        data[len(data) // 2] ^= 1
        (out / name).write_bytes(data)
    (out / "part-00001.parquet").unlink()
    assert main(["verify", str(out)]) == 2
    said = capsys.readouterr().err
    assert "part-00000.safetensors: damaged" in said
    assert "part-00001.parquet: missing" in said
    assert "part-00002.parquet: damaged" in said


def test_verify_cross_checks_what_hashes_cannot_know(tokenized: Any) -> None:
    """A writer with a fault gives hashes that fit; what the files say against each other does not."""
    out = tokenized()
    manifest = shards.read_manifest(out)
    piece = Tokenization(out / "tokenizer", 16, "head").sequences(pa.array(["good"] * 10))
    bad_ids = piece.input_ids.copy()
    bad_ids[0] = 7
    faulty = shards.Sequences(bad_ids, piece.offsets, piece.row_ids, piece.n_truncated, piece.n_unknown + 1)
    parts = (shards.write_part(out, 0, faulty), *manifest.parts[1:])
    changed = {**manifest.__dict__, "parts": parts}
    shards.write_manifest(out, shards.Manifest(**changed))
    found = problems(out)
    assert any("begins with [CLS]" in line for line in found)
    assert any("n_unknown does not count" in line for line in found)
    assert any("n_tokens is" in line for line in found)
    tokenized()
    write_clean(Path("data/clean.parquet"), TEXTS[:5], ["0"] * 5)
    assert problems(out, Path("data/clean.parquet")) == [f"{out}: its rows are not those of data/clean.parquet, in their order"]


def test_the_tokenizer_is_an_ordinary_one(tokenized: Any) -> None:
    from transformers import AutoTokenizer

    out = tokenized(tokenize__truncation="head")
    theirs = AutoTokenizer.from_pretrained(str(out / "tokenizer"))
    assert theirs.model_max_length == 64
    store = shards.open_store(out)
    expected = theirs(TEXTS, truncation=True, max_length=16)["input_ids"]
    assert [store.sequence(i).tolist() for i in range(len(store))] == expected
