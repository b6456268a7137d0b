"""Generated inputs: a seed gives the same files, parameters and expectations every time."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tarfile
import zipfile
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.counting import csv_records, json_records

PIECES = [
    *["good", "bad", "film", "Good", "GOOD!", "a", "zwei", "один", "日本語", "مرحبا", "שלום", "😀", "👨‍👩‍👧"],
    *["<br />", "<br><br>", "<p>", "<b>x</b>", "&amp;", "&lt;b&gt;", "&#0;", "&#x110000;", "<", ">", "<!--", "<script>"],
    *[",", ";", "\t", "|", '"', '""', "'", "\\", "\n", "\r\n", "\r", "\x00", "\x07", "\x1f", "\x85", "\u2028"],
    *[
        "e\u0301",
        "é",
        "\u212b",
        "\u200b",
        "\ufeff",
        "\u00ad",
        "\u202e",
        "\u00a0",
        "  ",
        " ",
        "\ufffd",
        "=1+1",
        "@joe",
        "http://x.y",
    ],
]
LABELS = ["0", "1", "pos", "neg", " pos", "pos ", "é", "e\u0301", "", "NA", "null", "1.0", "True", "a;b"]
ENCODINGS = ["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]


@dataclass
class Case:
    """Files to lay down, what `data` and `clean` say of them, and what must come out."""

    name: str
    files: dict[str, bytes]
    records: int | None = None  # by another counter than ours; None: only that nothing is lost can be checked
    readable: bool = False  # must be read: an error for the file as a whole is a failure
    params: dict[str, Any] = field(default_factory=dict)


def make(seed: int) -> Case:
    """The case of a seed."""
    rng = random.Random(seed)
    if rng.random() < 0.08:
        return rng.choice(NASTIES)(rng)
    kind = rng.choices([_csv, _jsonl, _parquet, _folders], [55, 25, 10, 10])[0]
    case = kind(rng)
    return _packed(rng, case)


def text(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) + rng.choice(["", "", " "]) for _ in range(rng.choice([0, 1, 1, 2, 3, 5, 8, 30])))


def _csv(rng: random.Random) -> Case:
    delimiter, name = rng.choice([(",", "a.csv"), (",", "a.csv"), (";", "a.csv"), ("\t", "a.tsv"), ("|", "a.csv")])
    out = io.StringIO(newline="")
    end = rng.choice(["\n", "\r\n", "\r"])
    quoting: Any = csv.QUOTE_ALL if end != "\r\n" else rng.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
    columns = rng.sample(["text", "label", "id", "note"], 4) if rng.random() < 0.5 else ["text", "label"]
    out.write(delimiter.join(columns) + end)
    labels = rng.choice([LABELS, ["pos", "neg"], ["0", "1", "2"]])
    for _ in range(rng.choice([0, 1, 2, 5, 20, 60])):
        row = {"text": text(rng), "label": rng.choice(labels), "id": str(rng.random()), "note": text(rng)}
        writer.writerow([row[column] for column in columns])
        if rng.random() < 0.1:
            out.write(
                rng.choice(["one field", f"a{delimiter}b{delimiter}c{delimiter}d{delimiter}e", '"', '"open', '"a"b', ""]) + end
            )
    return _encoded(rng, out.getvalue(), name, delimiter)


def _jsonl(rng: random.Random) -> Case:
    lines = ['{"text": "first", "label": "1"}']
    for _ in range(rng.choice([0, 1, 2, 5, 20, 60])):
        value: Any = rng.choice([text(rng), text(rng), text(rng), text(rng), 7, None, 1.5, True, ["x"], {"y": 1}])
        label: Any = rng.choice([*LABELS, 1, 0, None, 2.0, False, ["a", "b"], [], {"z": 1}])
        lines.append(json.dumps({"text": value, "label": label}, ensure_ascii=rng.random() < 0.5))
        if rng.random() < 0.15:
            lines.append(
                rng.choice(
                    [
                        "",
                        "   ",
                        "{",
                        "[1]",
                        "null",
                        '{"text": "\\ud800", "label": 1}',
                        "[" * 5000,
                        '{"text": 1e999}',
                        "NaN",
                        "{}",
                    ]
                )
            )
    return _encoded(rng, rng.choice(["\n", "\r\n"]).join(lines), "a.jsonl", None)


def _encoded(rng: random.Random, content: str, name: str, delimiter: str | None) -> Case:
    encoding = rng.choice(ENCODINGS)
    raw = content.encode(encoding, "replace" if encoding == "cp1252" else "strict")
    mutated = rng.random() < 0.3
    if mutated:
        raw = _mutate(rng, raw)
    case = Case(f"{name} {encoding}{' mutated' if mutated else ''}", {name: raw})
    # A byte order mark says which encoding it is; without one, what is not UTF-8 may be taken for another encoding.
    certain = encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32") and not mutated
    if encoding in ("utf-8", "utf-8-sig", "cp1252"):
        decoded = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        known = not raw.startswith((b"\xff\xfe", b"\xfe\xff")) and b"\x00" not in raw[:4096] if mutated else True
    else:
        decoded, known = raw.decode(encoding, "replace"), certain
    if not known:
        return case
    if delimiter is None:
        case.records, case.readable = json_records(decoded), certain
        return case
    header, records = csv_records(decoded, delimiter)
    if header is not None and "text" in map(str.strip, header) and "label" in map(str.strip, header):
        case.records, case.readable = records, certain
    return case


def _mutate(rng: random.Random, raw: bytes) -> bytes:
    data = bytearray(raw)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(5)
        if what == 0:
            data[at:at] = rng.choice(
                [b'"', b"\r", b"\n", b"\x00", b"\xff", b"\xed\xa0\x80", b",", b"\xc3", b"\x1a", b"{", b"\xef\xbb\xbf"]
            )
        elif what == 1:
            del data[at : at + rng.randint(1, 20)]
        elif what == 2 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif what == 3:
            data[at:at] = data[at : at + rng.randint(1, 50)]
        else:
            del data[max(at, len(data) // 2) :]
    return bytes(data)


def _parquet(rng: random.Random) -> Case:
    n = rng.choice([0, 1, 5, 50])
    texts = [rng.choice([text(rng), None]) for _ in range(n)]
    as_bytes = [None if t is None else t.encode() + rng.choice([b"", b"", b"\xff"]) for t in texts]
    labels: Any = rng.choice(
        [
            pa.array([rng.choice([*LABELS, None]) for _ in range(n)], pa.string()),
            pa.array([rng.choice([0, 1, None]) for _ in range(n)], pa.int8()),
            pa.array([rng.choice([0.0, 1.5, None]) for _ in range(n)], pa.float64()),
            pa.array([rng.choice([True, False]) for _ in range(n)], pa.bool_()),
            pa.array([rng.choice([["a"], [], ["a", "b"], None]) for _ in range(n)], pa.list_(pa.string())),
        ]
    )
    column = rng.choice([pa.array(texts, pa.string()), pa.array(texts, pa.large_string()), pa.array(as_bytes, pa.binary())])
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"text": column, "label": labels, "extra": pa.array(range(n))}), sink, row_group_size=max(n // 2, 1)
    )
    raw = sink.getvalue().to_pybytes()
    if rng.random() < 0.2:
        return Case("parquet mutated", {"a.parquet": _mutate(rng, raw)})
    return Case("parquet", {"a.parquet": raw}, n, True)


def _folders(rng: random.Random) -> Case:
    files = {}
    for i in range(rng.choice([1, 3, 20])):
        encoding = rng.choice(ENCODINGS)
        raw = text(rng).encode(encoding, "replace" if encoding == "cp1252" else "strict")
        files[f"{rng.choice(['pos', 'neg', 'Ümlaut', 'a b'])}/{i}.txt"] = raw
    return Case("folders", files, len(files), True)


def _packed(rng: random.Random, case: Case) -> Case:
    """Some arrive compressed or in an archive, some of these damaged."""
    how = rng.random()
    if how < 0.75:
        return case
    damaged = rng.random() < 0.2
    if how < 0.85 and len(case.files) == 1 and not case.name.startswith("parquet"):
        [(name, raw)] = case.files.items()
        packed = (
            {name + ".gz": gzip.compress(raw, mtime=0)}
            if rng.random() < 0.5
            else {name + ".zst": pa.compress(raw, "zstd", asbytes=True)}
        )
    else:
        packed = {"a.zip": _zip(case.files)} if rng.random() < 0.5 else {"a.tar.gz": _tar(case.files)}
    if damaged:
        packed = {name: _mutate(rng, raw) for name, raw in packed.items()}
        return Case(case.name + " packed damaged", packed, None, False)
    return Case(case.name + " packed", packed, case.records, case.readable, case.params)


def _zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in files.items():
            archive.writestr(name, raw)
    return out.getvalue()


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, raw in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return out.getvalue()


def _plain(name: str, raw: bytes, records: int | None, readable: bool = False, **params: Any) -> Case:
    return Case(f"nasty {name}", {"a.jsonl" if raw[:1] == b"{" else "a.csv": raw}, records, readable, params)


HEADER = b"text,label\n"
NASTIES = [
    lambda rng: _plain("empty file", b"", None),
    lambda rng: _plain("header only", HEADER, 0),
    lambda rng: _plain("header without line end", b"text,label", 0),
    lambda rng: _plain("one column", b"text\nx\ny\n", None),
    lambda rng: _plain("no header", b"nice,1\nbad,0\n", None),
    lambda rng: _plain("two columns of one name", b"text,text,label\na,b,1\n", None),
    lambda rng: _plain("cell of 10 MB", HEADER + b'"' + b"x" * (10 << 20) + b'",1\ny,0\n', 2, True),
    lambda rng: _plain("cell of 10 MB with line breaks", HEADER + b'"' + b"xyz,\n" * (2 << 20) + b'",1\ny,0\n', 2, True),
    lambda rng: _plain(
        "line of 10 MB of JSON", b'{"text": "' + b"x" * (10 << 20) + b'", "label": 1}\n{"text": "y", "label": 0}', 2, True
    ),
    lambda rng: _plain("quote opened at the end", HEADER + b"x,1\n" * 1000 + b'"', 1001, True),
    lambda rng: _plain("quote opened at the start", HEADER + b'"' + b"x,1\n" * 1000, 1000, True),
    lambda rng: _plain("lone quotes", HEADER + b'"\n' * 999, 500, True),
    lambda rng: _plain("NUL bytes", HEADER + b"\x00,\x00\n" * 100, 100),
    lambda rng: _plain(
        "deeply nested JSON", b'{"text": "x", "label": 1}\n' + b'{"a":' * 100_000 + b"\n" + b"[" * 100_000, 3, True
    ),
    lambda rng: _plain("numbers of 10,000 digits", b'{"text": "x", "label": ' + b"9" * 10_000 + b"}", 1, True),
    lambda rng: _plain("thousand labels", HEADER + b"".join(b"text %d,%d\n" % (i, i) for i in range(1000)), 1000, True),
    lambda rng: _plain("all the same", HEADER + b"same,1\n" * 1000, 1000, True),
    lambda rng: _plain("all contradictions", HEADER + b"same,1\nsame,0\n" * 500, 1000, True),
    lambda rng: _plain("NFC and NFD", HEADER + "é,1\ne\u0301,1\nÉ,1\n".encode(), 3, True),
    lambda rng: _plain("zero width only", HEADER + "\u200b\ufeff,1\nx\u200by,1\nxy,0\n".encode(), 3, True),
    lambda rng: _plain("right to left", HEADER + "\u202eمرحبا\u202c,1\nשלום,0\n".encode(), 2, True),
    lambda rng: _plain("label typos", HEADER + b"a,pos\nb,Pos\nc,pos.\nd,neg\n", 4, True),
    lambda rng: Case("nasty zip bomb", {"a.zip": _zip({"a.csv": bytes(30 << 20)})}),
    lambda rng: Case("nasty gzip bomb", {"a.csv.gz": gzip.compress(HEADER + bytes(80 << 20), mtime=0)}),
    lambda rng: Case("nasty path traversal", {"a.zip": _zip({"../../evil.csv": b"x", "a.csv": HEADER})}),
    lambda rng: Case("nasty tar traversal", {"a.tar.gz": _tar({"/tmp/evil.csv": b"x"})}),
    lambda rng: Case("nasty archive in archive", {"a.zip": _zip({"b.zip": _zip({"a.csv": HEADER})})}),
    lambda rng: Case("nasty no archive", {"a.zip": b"text,label\nx,1\n"}),
    lambda rng: Case("nasty no parquet", {"a.parquet": b"text,label\nx,1\n"}),
    lambda rng: Case("nasty random bytes", {"a.csv": rng.randbytes(2000)}),
    lambda rng: Case("nasty random bytes", {"a.jsonl": rng.randbytes(2000)}),
    lambda rng: Case(
        "nasty mixed files", {"a.csv": HEADER + b"x,1\n", "b.jsonl": b'{"text": "y", "label": "0"}\n', "c.md": b"#"}, 2, True
    ),
    lambda rng: Case("nasty json array", {"a.json": b'[{"text": "x", "label": 1}]'}),
]
