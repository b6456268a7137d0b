from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagobert.errors import RecordError
from dagobert.records import Columns, Reading, delimited, find, read, regular, streams

COLUMNS = Columns("text", "label")
# Everything that means something to CSV, and some that means something to people.
FIELD = st.text(st.sampled_from(list("ab ,;\t\"'\\\n\r\x00é日😀\u200b\u2028")), max_size=12)


def rows(path: Path, columns: Columns = COLUMNS, reading: Reading | None = None) -> list[dict[str, Any]]:
    batches = list(read(find(str(path), (reading or Reading()).format), columns, reading or Reading()))
    return [row for batch in batches for row in batch.to_pylist()]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_record_knows_its_file_and_first_line(tmp_path: Path) -> None:
    found = rows(write(tmp_path / "a.csv", 'text,label\n"two\nlines",1\nthree,0\n\n"a ""quote""",1\n'))
    assert [(row["row_id"], row["source_line"], row["text"], row["label"]) for row in found] == [
        (0, 2, "two\nlines", "1"),
        (1, 4, "three", "0"),
        (2, 6, 'a "quote"', "1"),  # line 5 is empty: no record
    ]
    assert {row["source_file"] for row in found} == {"a.csv"}
    assert {row["problem"] for row in found} == {None}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(FIELD, FIELD), max_size=8),
    # Python's csv quotes "\r" only where it is part of the line's end, or everything is quoted.
    st.sampled_from([("\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_MINIMAL)]),
)
def test_what_was_written_is_read(table: list[tuple[str, str]], style: tuple[str, Any]) -> None:
    end, quoting = style
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        expected, line = [], 2
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator=end, quoting=quoting)
            writer.writerow(["text", "label"])
            for fields in table:
                writer.writerow(fields)
                expected.append((line, *fields))
                written = io.StringIO(newline="")
                csv.writer(written, lineterminator=end, quoting=quoting).writerow(fields)
                line += len(io.StringIO(written.getvalue(), newline="").readlines())
        assert [(row["source_line"], row["text"], row["label"]) for row in rows(path)] == expected


@pytest.mark.parametrize(
    ("damage", "raw", "words"),
    [
        ('"never closed,1\n', '"never closed,1', "never closed"),
        ('"closed" early,1\n', '"closed" early,1', "not doubled inside a quoted field"),
        ("one field\n", "one field", "1 fields where the header has 2"),
        ("a,b,c\n", "a,b,c", "3 fields where the header has 2"),
    ],
)
def test_a_damaged_record_costs_only_itself(tmp_path: Path, damage: str, raw: str, words: str) -> None:
    found = rows(write(tmp_path / "a.csv", f'text,label\nbefore,1\n{damage}after,0\n"and\nmore",1\n'))
    assert [row["text"] for row in found] == ["before", raw, "after", "and\nmore"]
    assert [row["problem"] for row in found] == [None, "malformed_record", None, None]
    assert [row["source_line"] for row in found] == [2, 3, 4, 5]
    assert words in found[1]["detail"]


def test_bytes_that_are_no_text_are_never_replaced(tmp_path: Path) -> None:
    found = rows(write(tmp_path / "a.csv", b"text,label\ncaf\xc3\xa9,1\nna\xefve,0\nfine,1\n"))
    assert [row["problem"] for row in found] == [None, "undecodable_text", None]
    assert found[1]["text"] == "na\\udcefve"
    assert found[1]["detail"] == "byte 0xef at character 3 cannot be decoded"
    assert "\ufffd" not in "".join(row["text"] for row in found)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_header_tells_the_delimiter(tmp_path: Path, delimiter: str) -> None:
    path = write(tmp_path / "a.csv", f"{delimiter.join(['id', 'text', 'label'])}\n{delimiter.join(['7', 'a, b; c', 'x'])}\n")
    if delimiter in ",;":
        path.write_text(path.read_text().replace("a, b; c", '"a, b; c"'))
    assert [(row["text"], row["label"]) for row in rows(path)] == [("a, b; c", "x")]


def test_other_ways_of_quoting(tmp_path: Path) -> None:
    none = write(tmp_path / "none.tsv", 'text\tlabel\n"Well," he said\t1\n5" disk\t0\n')
    assert [row["text"] for row in rows(none, reading=Reading(quoting="none"))] == ['"Well," he said', '5" disk']
    backslash = write(tmp_path / "backslash.csv", 'text,label\n"a \\"b\\", c",1\n')
    assert [row["text"] for row in rows(backslash, reading=Reading(quoting="backslash"))] == ['a "b", c']


def test_a_file_without_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "4,nice,x\n0,bad,y\n")
    found = rows(path, reading=Reading(columns=("label", "text", "user")))
    assert [(row["source_line"], row["text"], row["label"]) for row in found] == [(1, "nice", "4"), (2, "bad", "0")]


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "review,label\nx,1\n")
    with pytest.raises(RecordError, match=r"a\.csv: there is no column 'text'\. It has: 'review', 'label'\. Mend data\.text"):
        rows(path)
    with pytest.raises(RecordError, match="the column 'text' stands there 2 times"):
        rows(write(path, "text,text,label\n"))
    with pytest.raises(RecordError, match="the file is empty"):
        rows(write(path, ""))
    with pytest.raises(RecordError, match="first line is empty"):
        rows(write(path, "\ntext,label\n"))
    assert rows(write(path, "text,label\n")) == []


def test_a_cell_of_ten_megabytes(tmp_path: Path) -> None:
    big = "x" * (10 << 20)
    found = rows(write(tmp_path / "a.csv", f'text,label\n"{big}",1\nsmall,0\n'))
    assert [len(row["text"]) for row in found] == [10 << 20, 5]


def test_quotes_that_never_close_do_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_MAX_WASTE", 10_000)
    lines = 'x,"' + "y" * 100 + "\nz\n" + '"",' + '"a' * 2
    with pytest.raises(RecordError, match=r"data\.quoting: none"):
        rows(write(tmp_path / "a.csv", "text,label\n" + (lines + "\n") * 2000 + '"open'))


RECORD = st.one_of(
    st.tuples(FIELD, FIELD).map(lambda fields: ",".join('"' + field.replace('"', '""') + '"' for field in fields)),
    st.tuples(FIELD, FIELD).map(lambda fields: ",".join(fields)),
    st.sampled_from(
        ["plain,1", "é,0", "", '"a\nb",1', '""""', '"",""', ",", '"x"y,1', '"open', "\ufeffx,1", "\ufeff", "a,b,c", "\r"]
    ),
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(RECORD, max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.sampled_from([b"", b"\xff", b"\xe9,1\n"]),
    st.sampled_from([1, 7, 64, 1 << 20]),
)
def test_the_fast_way_and_the_careful_way_agree(records: list[str], end: str, ended: bool, damage: bytes, size: int) -> None:
    # Without NUL bytes: how many of them the first chunk holds decides whether it is taken for UTF-16.
    content = ("text,label" + end + end.join(records).replace("\0", "0")).encode() + damage + (end.encode() if ended else b"")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = write(Path(folder) / "a.csv", content)
        patch.setattr(streams, "_CHUNK", size)
        patch.setattr(regular, "_BLOCK", size)
        fast = rows(path)
        patch.setattr(delimited, "_opening", lambda first, reading: None)
        patch.setattr(streams, "_CHUNK", 1 << 20)
        assert fast == rows(path)


def test_the_fast_way_is_taken_and_left_in_mid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regular, "_BLOCK", 1000)
    monkeypatch.setattr(streams, "_CHUNK", 1000)
    good = '"with ""quotes"",\nand lines",é\r\nplain,0\r\n\r\n' * 100
    seen: list[Any] = []
    real = regular.read

    def spy(*arguments: Any) -> Any:
        rest = yield from real(*arguments)
        seen.append(rest)
        return rest

    monkeypatch.setattr(regular, "read", spy)
    found = rows(write(tmp_path / "a.csv", "text,label\r\n" + good))
    assert seen == [None]
    assert [row["source_line"] for row in found] == [line for i in range(100) for line in (2 + 4 * i, 4 + 4 * i)]
    found = rows(write(tmp_path / "b.csv", "text,label\r\n" + good + '5" disk,1\n' + good))
    assert seen[1].line > 300
    assert len(found) == 401
    assert {row["problem"] for row in found} == {None}
    assert found[200]["text"] == '5" disk'
    assert [row["source_line"] for row in found[200:203]] == [402, 403, 405]
