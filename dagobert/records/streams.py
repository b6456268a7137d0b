"""A file's bytes → lines of text: decompressed, decoded, never with a replacement character.

Bytes that are no text in the file's encoding come through as lone surrogates (Python's `surrogateescape`), so that the record
they stand in can be set aside and the next one be read. Encoding: BOM, else UTF-16 by its zero bytes, else UTF-8 until a byte
contradicts it; then a legacy code page, found by charset-normalizer, unless the file held more good UTF-8 than bad.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from dagobert.errors import RecordError
from dagobert.records.batches import MAX_RECORD, Notes

_CHUNK = 1 << 20
_SAMPLE = 1 << 16  # bytes that charset-normalizer looks at
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_BOMS = [  # longest first: UTF-32-LE begins like UTF-16-LE
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
]
_LEGACY = [
    *(f"cp125{n}" for n in range(9)),
    "koi8_r",
    "cp932",
    "euc_jp",
    "gb18030",
    "big5",
    "cp949",
]


# UTF-16 and UTF-32 cannot escape single bytes: what is wrong in them becomes one lone surrogate.
_MARK = "dagobert.mark"
codecs.register_error(_MARK, lambda error: ("\ud800", error.end))  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Begun:
    """A file of which some was read already: the bytes to go on with, and, where that is in the middle of UTF-8, whether there
    was text beyond ASCII before (None: these are the bytes from its start)."""

    pieces: Iterator[bytes]
    beyond_ascii: bool | None


def lines(path: Path, encoding: str, notes: Notes, begun: Begun | None = None) -> Iterator[str]:
    r"""Physical lines with their ends (`\n`, `\r\n` or `\r`).

    Args:
        path: the file.
        encoding: `auto` or a codec.
        notes: hears of the encoding that was found.
        begun: what to go on with, if some was read already.
    Raises:
        RecordError: damaged compression, an unknown encoding, or a line beyond any text's length.
    """
    held: list[str] = []  # the beginning of a line whose end has not come yet
    length = 0
    for text in decoded(path, encoding, notes, begun):
        if "\n" in text or "\r" in text:
            last = ""
            for line in io.StringIO("".join(held) + text, newline=""):
                if last:
                    yield last
                last = line
            # A last "\r" waits for its "\n".
            if last.endswith("\n"):
                yield last
                last = ""
            held, length = [last], len(last)
        else:
            held.append(text)
            length += len(text)
            if length > MAX_RECORD:
                raise RecordError(f"{path}: a line of more than {MAX_RECORD >> 20} million characters: this is no text file.")
    yield from io.StringIO("".join(held), newline="")


def decoded(path: Path, encoding: str, notes: Notes, begun: Begun | None = None) -> Iterator[str]:
    """Text of a file in pieces; bytes that cannot be decoded are lone surrogates."""
    pieces = chunks(path, notes) if begun is None else begun.pieces
    middle = begun is not None and begun.beyond_ascii is not None
    first = next(pieces, b"")
    name, skip = (encoding, 0) if encoding != "auto" else ("utf-8", 0) if middle else by_first_bytes(first)
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        raise RecordError(f"data.encoding: {encoding!r} is no encoding that Python knows. Try utf-8, cp1252 or auto.") from None
    if encoding != "auto" and not middle:
        skip = next((len(bom) for bom, of in _BOMS if of == codec and first.startswith(bom)), 0)
    tentative = encoding == "auto" and codec == "utf-8"
    decoder = _decoder(codec, strict=tentative)
    seen_good = begun is not None and bool(begun.beyond_ascii)
    notes.encoding(codec)
    piece, more = first[skip:], True
    while more:
        following = next(pieces, None)
        more = following is not None
        before = decoder.getstate() if tentative else None
        try:
            text = decoder.decode(piece, final=not more)
        except UnicodeDecodeError:
            assert tentative, "only strict decoding raises"
            tentative = False
            piece = (before[0] if before else b"") + piece
            codec = codec if _mostly_utf8(piece, seen_good) else legacy_encoding(piece)
            notes.encoding(codec)
            decoder = _decoder(codec, strict=False)
            text = decoder.decode(piece, final=not more)
        seen_good = seen_good or not text.isascii()
        if text:
            yield text
        piece = following or b""


def chunks(path: Path, notes: Notes) -> Iterator[bytes]:
    """Decompressed bytes of a file."""
    try:
        with path.open("rb") as raw:
            head = raw.read(4)
            raw.seek(0)
            codec = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
            stream: IO[bytes] = raw if codec is None else pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec)
            used = 0
            while piece := stream.read(_CHUNK):
                at = raw.tell()
                notes.used(at - used)
                used = at
                yield bytes(piece)
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, FileNotFoundError):
            raise RecordError(f"{path}: no such file.") from None
        raise RecordError(
            f"{path}: cannot be read to its end, it is damaged or cut short ({error}). Get the file again."
        ) from error


def _decoder(codec: str, *, strict: bool) -> codecs.IncrementalDecoder:
    errors = _MARK if codec.startswith(("utf-16", "utf-32")) else "surrogateescape"
    return codecs.getincrementaldecoder(codec)("strict" if strict else errors)


def by_first_bytes(first: bytes) -> tuple[str, int]:
    """The encoding that the beginning of a file suggests, and how many bytes its mark takes."""
    for bom, name in _BOMS:
        if first.startswith(bom):
            return name, len(bom)
    zeros = np.frombuffer(first[:4096], np.uint8) == 0
    if len(zeros) >= 4 and zeros.any():
        even, odd = zeros[0::2].mean(), zeros[1::2].mean()
        if odd > 0.4 and even < odd / 4:
            return "utf-16-le", 0
        if even > 0.4 and odd < even / 4:
            return "utf-16-be", 0
    return "utf-8", 0


def _mostly_utf8(piece: bytes, seen_good: bool) -> bool:
    """Whether the file is UTF-8 with some damage, and not another encoding."""
    points = np.frombuffer(piece.decode("utf-8", "surrogateescape").encode("utf-32-le", "surrogatepass"), np.uint32)
    bad = int(((points >= 0xDC80) & (points <= 0xDCFF)).sum())
    return seen_good or int((points > 0x7F).sum()) - bad >= bad


def legacy_encoding(piece: bytes) -> str:
    """The code page of bytes that are not UTF-8: Windows-1252 unless another one fits clearly better."""
    from charset_normalizer import from_bytes

    telling = b"\n".join(line for line in piece.splitlines() if not line.isascii())[:_SAMPLE]
    matches = from_bytes(telling, cp_isolation=_LEGACY)
    best = matches.best()
    if best is None:
        return "cp1252"
    try:
        western = telling.decode("cp1252")
    except UnicodeDecodeError:
        return codecs.lookup(best.encoding).name
    usual = next((m for m in matches if m.encoding == "cp1252" or str(m) == western), None)
    if usual is not None and usual.chaos <= best.chaos + 0.02 and usual.coherence >= best.coherence - 0.2:
        return "cp1252"
    return codecs.lookup(best.encoding).name
