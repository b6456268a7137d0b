from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagobert import files, shards
from dagobert.errors import ShardError
from dagobert.shardcheck import problems
from dagobert.shards import Manifest, Sequences, TokenStore, mean_by_document, open_store


def sequences(lengths: list[int], first_row: int = 0, pairs: bool = False, rows: list[int] | None = None) -> Sequences:
    """[CLS]=1 … [SEP]=2 with ids from 3 on."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = (np.arange(offsets[-1]) % 50 + 3).astype(np.uint16)
    ids[offsets[:-1]], ids[offsets[1:] - 1] = 1, 2
    n = len(lengths)
    zero = np.zeros(n, np.int64)
    row_ids = np.arange(first_row, first_row + n) if rows is None else np.array(rows)
    second = np.array(lengths) - 1 if pairs else None
    return Sequences(ids, offsets, row_ids.astype(np.int64), zero, zero, second)


def write(directory: Path, pieces: list[Sequences], max_length: int = 16) -> Manifest:
    (directory / "tokenizer").mkdir(parents=True)
    (directory / "tokenizer" / "tokenizer.json").write_text("{}")
    parts = tuple(shards.write_part(directory, n, piece) for n, piece in enumerate(pieces))
    manifest = Manifest(
        tokenizer={"name_or_path": "tiny", "sha256": files.sha256_tree(directory / "tokenizer")},
        max_length=max_length,
        truncation="head",
        stride=None,
        vocab_size=100,
        special_ids={"pad": 0, "cls": 1, "sep": 2, "unk": 99, "mask": 98},
        n_rows=sum(p.n_rows for p in parts),
        n_sequences=sum(p.n_sequences for p in parts),
        n_tokens=sum(p.n_tokens for p in parts),
        clean={"steps": ["markup"]},
        parts=parts,
    )
    shards.write_manifest(directory, manifest)
    return manifest


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write(tmp_path / "tokens", [sequences([3, 5, 2]), sequences([6, 4], first_row=3)])
    return tmp_path / "tokens"


def test_what_is_written_is_read(written: Path) -> None:
    store = open_store(written)
    assert len(store) == 5
    assert store.row_ids.tolist() == [0, 1, 2, 3, 4]
    assert store.lengths.tolist() == [3, 5, 2, 6, 4]
    assert store.sequence(1).tolist() == [1, 7, 8, 9, 2]
    assert store.sequence(4).tolist() == [1, 10, 11, 2]
    assert store.manifest is not None
    assert store.manifest.clean == {"steps": ["markup"]}
    assert store.token_types([0, 1]) is None
    with pytest.raises(IndexError):
        store.sequence(5)


def test_gather_lays_sequences_end_to_end(written: Path) -> None:
    ids, cu_seqlens = open_store(written).gather([4, 0, 2])
    assert ids.dtype == np.int64
    assert cu_seqlens.dtype == np.int32
    assert cu_seqlens.tolist() == [0, 4, 7, 9]
    assert ids.tolist() == [1, 10, 11, 2, 1, 4, 2, 1, 2]
    assert [len(a) for a in open_store(written).gather([])] == [0, 1]


def test_the_same_sequences_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, [sequences([3, 5, 2]), sequences([6, 4], first_row=3, pairs=False)])
    assert files.sha256_tree(tmp_path / "a") == files.sha256_tree(tmp_path / "b")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=12), st.data())
def test_gather_equals_its_sequences(lengths: list[int], data: st.DataObject) -> None:
    piece = sequences(lengths, pairs=True)
    store = TokenStore.from_arrays(piece.input_ids, piece.offsets, piece.row_ids, piece.second)
    index = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=8))
    ids, cu_seqlens = store.gather(index)
    types = store.token_types(index)
    assert types is not None
    assert len(types) == len(ids)
    for k, i in enumerate(index):
        begin, end = cu_seqlens[k], cu_seqlens[k + 1]
        assert np.array_equal(ids[begin:end], store.sequence(i))
        # the second text is the last token alone: [0, …, 0, 1]
        assert types[begin:end].tolist() == [0] * (lengths[i] - 1) + [1]


def test_select_gives_all_windows_of_each_row_in_the_order_asked() -> None:
    # rows 10, 11, 12 with 2, 1 and 3 windows
    piece = sequences([4, 3, 5, 4, 4, 2], rows=[10, 10, 11, 12, 12, 12])
    store = TokenStore.from_arrays(piece.input_ids, piece.offsets, piece.row_ids)
    assert piece.n_rows == 3
    found = store.select([12, 10])
    assert found.sequences.tolist() == [3, 4, 5, 0, 1]
    assert found.document.tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(ShardError, match="hold no tokens of 1 rows"):
        store.select([10, 99])


def test_a_document_is_the_mean_of_its_windows() -> None:
    values = np.array([[1, 3], [3, 5], [7, 7], [0, 1], [0, 2], [0, 6]], np.float32)
    document = np.array([0, 0, 1, 2, 2, 2])
    # (1+3)/2 (3+5)/2 | 7 7 | 0 (1+2+6)/3
    assert mean_by_document(values, document).tolist() == [[2, 4], [7, 7], [0, 3]]
    same = np.arange(6)
    assert mean_by_document(values, same) is values


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_ids_take_the_smallest_type(vocab_size: int, dtype: type) -> None:
    assert shards.id_dtype(vocab_size) is dtype


def test_every_flipped_byte_is_found_and_its_file_named(written: Path) -> None:
    clean = open_store(written)
    assert len(clean) == 5
    del clean
    missed = []
    rng = np.random.default_rng(0)
    for path in sorted(p for p in written.rglob("*") if p.is_file()):
        original = path.read_bytes()
        for at in range(len(original)):
            damaged = bytearray(original)
            damaged[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            name = "tokenizer" if path.parent.name == "tokenizer" else path.name
            try:
                open_store(written)
                missed.append((path.name, at))
            except ShardError as error:
                if name not in str(error):
                    missed.append((str(error), at))
        path.write_bytes(original)
    assert missed == []
    open_store(written)


@pytest.mark.parametrize("name", ["manifest.json", "part-00000.safetensors", "part-00001.parquet", "tokenizer/tokenizer.json"])
def test_missing_and_cut_files_are_never_read(written: Path, name: str) -> None:
    path = written / name
    original = path.read_bytes()
    for size in (0, 1, len(original) // 2, len(original) - 1):
        path.write_bytes(original[:size])
        with pytest.raises(ShardError, match="dvc repro"):
            open_store(written)
        assert problems(written)
    path.unlink()
    with pytest.raises(ShardError):
        open_store(written)
    assert problems(written)


def test_a_file_the_manifest_does_not_know_is_refused(written: Path) -> None:
    (written / "part-00002.safetensors").write_bytes(b"")
    with pytest.raises(ShardError, match=r"part-00002\.safetensors"):
        open_store(written)


def test_another_format_is_refused(written: Path) -> None:
    path = written / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ShardError, match="has format 2; this Dagobert reads format 1"):
        open_store(written)


def test_shards_of_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "tokens", [])
    assert len(open_store(tmp_path / "tokens")) == 0
