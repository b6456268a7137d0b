"""JSON Lines, Parquet, class folders, encodings, compression and which files a path means."""

from __future__ import annotations

import bz2
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagobert.errors import RecordError
from dagobert.records import Columns, Notes, Reading, find, read
from tests.unit.records.test_delimited import rows, write

JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(JSON_VALUE, JSON_VALUE), min_size=1, max_size=6), st.booleans())
def test_every_json_line_becomes_one_row(values: list[tuple[Any, Any]], escape: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = [json.dumps({"text": text, "label": label}, ensure_ascii=escape) for text, label in values]
        path = write(Path(folder) / "a.jsonl", "\n".join(lines).encode("utf-8", "surrogatepass"))
        found = rows(path)
        assert [row["source_line"] for row in found] == list(range(1, len(values) + 1))
        for row, (text, label) in zip(found, values, strict=True):
            if row["problem"] is None:
                assert row["text"] == (text if isinstance(text, str | None) else row["text"])
                assert not isinstance(text, list | dict)
                assert not isinstance(label, dict)


def test_json_numbers_lists_and_damage(tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "label": 1}',
        '{"text": "b", "label": 2.0}',
        '{"text": "c", "label": true}',
        '{"text": "d", "label": ["x", "y"]}',
        '{"text": "e"}',
        '{"text": "half \\ud83d", "label": 1}',
        '{"text": ["f"], "label": 1}',
        "[" * 100_000,
        "42",
        '{"text": "g", "label": 1} trailing',
        '{"text": "h", "label": 1}',
    ]
    found = rows(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert [row["label"] for row in found[:5]] == ["1", "2", "true", "\x01x\x01y", None]
    assert [row["problem"] for row in found[5:]] == [
        "undecodable_text",
        "malformed_record",
        "malformed_record",
        "malformed_record",
        "malformed_record",
        None,
    ]
    assert found[10]["source_line"] == 11
    with pytest.raises(RecordError, match="one JSON array"):
        rows(write(tmp_path / "b.json", '[{"text": "a", "label": 1}]'))
    with pytest.raises(RecordError, match=r"no column 'label'\. It has: 'text', 'stars'"):
        rows(write(tmp_path / "c.jsonl", '{"text": "a", "stars": 1}\n{"text": "b"}\n'))


def test_parquet_columns_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table(
        {
            "text": pa.array([b"good", b"caf\xc3\xa9", b"\xff\xfe", None], pa.binary()),
            "label": pa.array([1.0, 2.0, None, 4.0]),
            "tags": pa.array([["a", "b"], [], None, ["c"]]),
            "kind": pa.array(["x", "y", "x", "x"]).dictionary_encode(),
        }
    )
    pq.write_table(table, path)
    found = rows(path, Columns("text", "label", ("kind",)))
    assert [row["text"] for row in found] == ["good", "café", "\\xff\\xfe", None]
    assert [row["label"] for row in found] == ["1", "2", None, "4"]
    assert [row["problem"] for row in found] == [None, None, "undecodable_text", None]
    assert [row["extra:kind"] for row in found] == ["x", "y", "x", "x"]
    assert [row["source_line"] for row in found] == [1, 2, 3, 4]
    assert [row["label"] for row in rows(path, Columns("text", "tags"))] == ["\x01a\x01b", "\x01", None, "\x01c"]
    with pytest.raises(RecordError, match="holds list<element: string>, not text"):
        rows(path, Columns("tags", "label"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RecordError, match="cannot be read as Parquet"):
        rows(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("size", [1, 100_000])  # below and above one chunk
def test_unicode_encodings_are_found(tmp_path: Path, encoding: str, size: int) -> None:
    text = "text,label\n" + "naïve café 日本 😀,1\n" * size
    notes = Notes()
    path = write(tmp_path / "a.csv", text.encode(encoding))
    batches = list(read(find(str(path)), Columns("text", "label"), Reading(), notes))
    assert sum(batch.num_rows for batch in batches) == size
    assert set(batches[-1].column("text").to_pylist()) == {"naïve café 日本 😀"}
    assert notes.files[0].encoding == encoding.replace("-sig", "") + ("-le" if encoding in ("utf-16", "utf-32") else "")


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1252", "Das Café kostet 5 € – „schön“ ist’s, naïve, garçon, Übermut"),
        ("cp1251", "Это очень хороший фильм, мне он понравился, советую посмотреть всем друзьям"),
        ("cp932", "この映画はとても面白かったです。みなさんにおすすめします。"),
    ],
)
def test_legacy_encodings_are_found(tmp_path: Path, encoding: str, words: str) -> None:
    ascii_first = "plain ascii,0\n" * 100_000  # the first such byte stands beyond the first chunk
    path = write(tmp_path / "a.csv", ("text,label\n" + ascii_first + f'"{words}",1\n' * 5).encode(encoding))
    notes = Notes()
    last = list(read(find(str(path)), Columns("text", "label"), Reading(), notes))[-1]
    assert last.column("text").to_pylist()[-1] == words
    assert notes.files[0].encoding == encoding
    assert rows(path, reading=Reading(encoding=encoding))[-1]["text"] == words


def test_half_a_character_at_the_end_of_utf16(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,1\nb,0\n".encode("utf-16") + b"x")
    assert [row["problem"] for row in rows(path)] == [None, None, "malformed_record"]
    lone = "text,label\nhalf \ud83d,1\nb,0\n".encode("utf-16", "surrogatepass")
    assert [row["problem"] for row in rows(write(path, lone))] == ["undecodable_text", None]


def test_an_unknown_encoding_is_a_users_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\n")
    with pytest.raises(RecordError, match=r"data\.encoding: 'utf-9' is no encoding"):
        rows(path, reading=Reading(encoding="utf-9"))


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ""])
def test_compression_is_seen_by_content(tmp_path: Path, suffix: str) -> None:
    plain = ("text,label\n" + "a line of text,1\n" * 50_000).encode()
    packed = {
        ".gz": gzip.compress(plain) + gzip.compress(b"one more,0\n"),
        ".bz2": bz2.compress(plain + b"one more,0\n"),
        ".zst": pa.compress(plain + b"one more,0\n", "zstd", asbytes=True),
        "": plain + b"one more,0\n",
    }[suffix]
    found = rows(write(tmp_path / f"a.csv{suffix}", packed))
    assert len(found) == 50_001
    assert found[-1]["text"] == "one more"
    if suffix:
        with pytest.raises(RecordError, match="damaged or cut short"):
            rows(write(tmp_path / f"b.csv{suffix}", packed[: len(packed) // 2]))


def test_class_folders(tmp_path: Path) -> None:
    for name, content in {"pos/1.txt": "good\n", "pos/deep/2.txt": "fine", "neg/1.txt": "b\xe9d", "neg/.hidden": "x"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    found = rows(tmp_path)
    assert [(row["source_file"], row["label"], row["text"]) for row in found] == [
        ("neg/1.txt", "neg", "béd"),
        ("pos/1.txt", "pos", "good\n"),
        ("pos/deep/2.txt", "pos", "fine"),
    ]
    with pytest.raises(RecordError, match=r"no column 'source'.*data\.where"):
        rows(tmp_path, Columns("text", "label", ("source",)))


def test_files_a_path_means(tmp_path: Path) -> None:
    for name in ("b.csv", "a.jsonl.gz", "deep/c.csv", "notes.md"):
        write(tmp_path / name, "text,label\n") if (tmp_path / name).parent.is_dir() else (tmp_path / "deep").mkdir()
    write(tmp_path / "deep/c.csv", "text,label\n")
    layout = find(str(tmp_path))
    assert [layout.name(file) for file in layout.files] == ["a.jsonl.gz", "b.csv", "deep/c.csv"]
    assert layout.formats == ("jsonl", "csv", "csv")
    layout = find(str(tmp_path / "**/*.csv"))
    assert [layout.name(file) for file in layout.files] == ["b.csv", "deep/c.csv"]
    assert find(str(tmp_path / "b.csv")).name(tmp_path / "b.csv") == "b.csv"
    for path, words in [
        ("nothing.csv", r"no file or directory .*nothing\.csv'\. In .*: a\.jsonl\.gz, b\.csv"),
        ("*.parquet", "no file matches"),
        ("notes.md", "does not tell its format"),
    ]:
        with pytest.raises(RecordError, match=words):
            find(str(tmp_path / path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="is empty"):
        find(str(tmp_path / "empty"))
    with pytest.raises(RecordError, match="no class folders"):
        find(str(tmp_path / "deep"), "folders")


def test_row_ids_run_through_all_files(tmp_path: Path) -> None:
    for name, n in [("a.csv", 3), ("b.csv", 0), ("c.jsonl", 2)]:
        text = "text,label\n" + "x,1\n" * n if name.endswith("csv") else '{"text": "x", "label": "1"}\n' * n
        write(tmp_path / name, text)
    found = rows(tmp_path)
    assert [row["row_id"] for row in found] == [0, 1, 2, 3, 4]
    assert [row["source_file"] for row in found] == ["a.csv"] * 3 + ["c.jsonl"] * 2


def test_plain_lines_for_predict(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\n\nthree")
    found = rows(path, Columns("text", None), Reading(format="lines"))
    assert [(row["source_line"], row["text"]) for row in found] == [(1, "one"), (2, ""), (3, "three")]
