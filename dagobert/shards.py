"""The shard format: ragged token ids on the disk, written once, hashed, memory-mapped.

A shard is a pair: `part-00000.safetensors` (flat ids in the smallest unsigned type that holds the vocabulary, and offsets)
that training maps, and `part-00000.parquet` (one line a sequence) that people query. No padding is stored. `manifest.json`
comes last and holds every file's SHA-256 and its own: a directory without it, or with one flipped byte, is never read as data.

A row may have several sequences (overlapping windows): they are adjacent and in order. Shapes: N sequences, R rows, T tokens.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dagobert import files
from dagobert.errors import ShardError

FORMAT = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer"
_AGAIN = "Make the tokens again: dvc repro --force --single-item tokenize."
_DTYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "I32": np.int32, "I64": np.int64}

IntArray = npt.NDArray[np.int64]
Ids = npt.NDArray[Any]


@dataclass(frozen=True)
class Sequences:
    """Ragged token ids in memory, and what is known of each sequence.

    Shapes: input_ids (T,) unsigned; offsets (N+1,); row_ids, n_truncated, n_unknown (N,); second (N,): where the second text
    of a pair begins in the sequence; None where there are no pairs.
    """

    input_ids: Ids
    offsets: IntArray
    row_ids: IntArray
    n_truncated: IntArray
    n_unknown: IntArray
    second: IntArray | None = None

    @property
    def n_rows(self) -> int:
        """Rows these sequences come from (windows of one row are adjacent)."""
        return int(np.count_nonzero(np.diff(self.row_ids)) + 1) if self.row_ids.size else 0


@dataclass(frozen=True)
class Part:
    """What the manifest says of one shard."""

    name: str
    n_rows: int
    n_sequences: int
    n_tokens: int
    safetensors_sha256: str
    parquet_sha256: str


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says: how the tokens were made, and which files hold them."""

    tokenizer: dict[str, Any]
    max_length: int
    truncation: str
    stride: int | None  # tokens that neighbouring windows share; None: no windows
    vocab_size: int
    special_ids: dict[str, int | None]
    n_rows: int
    n_sequences: int
    n_tokens: int
    clean: dict[str, Any]
    parts: tuple[Part, ...]

    def to_bytes(self) -> bytes:
        """The file: canonical JSON whose last key is the SHA-256 of everything before it."""
        body = {"format": FORMAT, **asdict(self)}
        body["sha256"] = hashlib.sha256(json.dumps(body, ensure_ascii=False).encode()).hexdigest()
        return (json.dumps(body, ensure_ascii=False, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: Path) -> Manifest:
        """Read what `to_bytes` wrote, byte for byte.

        Raises:
            ShardError: it is no manifest, of another format, or not exactly the bytes that were written.
        """
        try:
            body = json.loads(data)
            found = body.pop("format")
            body.pop("sha256")
            body["parts"] = tuple(Part(**part) for part in body["parts"])
            manifest = cls(**{field.name: body.pop(field.name) for field in fields(cls)})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ShardError(f"{where}: is no manifest of token shards ({type(error).__name__}: {error}). {_AGAIN}") from None
        if found != FORMAT:
            raise ShardError(f"{where}: has format {found!r}; this Dagobert reads format {FORMAT}. {_AGAIN}")
        if manifest.to_bytes() != data:
            raise ShardError(f"{where}: is damaged: its content does not match its own SHA-256. {_AGAIN}")
        return manifest


def id_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The smallest unsigned type of the format that holds every id below `vocab_size`."""
    return np.uint16 if vocab_size <= 2**16 else np.uint32


def part_name(number: int) -> str:
    """`part-00000` and so on."""
    return f"part-{number:05d}"


def write_part(directory: Path, number: int, sequences: Sequences) -> Part:
    """Write one shard, the pair of files; the same sequences give the same bytes."""
    from safetensors.numpy import save_file

    name = part_name(number)
    tensors, table = directory / f"{name}.safetensors", directory / f"{name}.parquet"
    arrays = {"input_ids": sequences.input_ids, "offsets": sequences.offsets}
    if sequences.second is not None:
        arrays["second"] = sequences.second.astype(np.int32)
    with files.storage_errors(tensors):
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, tensors)
    columns = {
        "row_id": pa.array(sequences.row_ids, pa.int64()),
        "n_tokens": pa.array(np.diff(sequences.offsets), pa.int32()),
        "n_truncated": pa.array(sequences.n_truncated, pa.int32()),
        "n_unknown": pa.array(sequences.n_unknown, pa.int32()),
    }
    with files.storage_errors(table):
        pq.write_table(pa.table(columns), table, compression="zstd")
    return Part(
        name=name,
        n_rows=sequences.n_rows,
        n_sequences=len(sequences.row_ids),
        n_tokens=len(sequences.input_ids),
        safetensors_sha256=files.sha256_file(tensors),
        parquet_sha256=files.sha256_file(table),
    )


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json`: from now on the directory is data."""
    with files.atomic_file(directory / MANIFEST) as temporary:
        temporary.write_bytes(manifest.to_bytes())


class _Slab(NamedTuple):
    """The arrays of one shard."""

    input_ids: Ids
    offsets: IntArray
    second: npt.NDArray[np.int32] | None


class Selection(NamedTuple):
    """The sequences of some rows. Shapes: sequences (S,): positions in the store; document (S,): positions in those rows."""

    sequences: IntArray
    document: IntArray


class TokenStore:
    """Read-only sequences of token ids, usually memory-mapped.

    Attributes:
        row_ids: row of each sequence, shape (N,); sequences of one row (windows) are adjacent.
        lengths: tokens of each sequence, shape (N,).
        manifest: how the tokens were made; None for a store built from arrays.
    """

    def __init__(self, slabs: Sequence[_Slab], row_ids: IntArray, manifest: Manifest | None = None) -> None:
        """Use `open_store` or `from_arrays`."""
        self._slabs = list(slabs)
        counts = np.array([len(slab.offsets) - 1 for slab in self._slabs], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.row_ids = row_ids
        lengths = [np.diff(slab.offsets) for slab in self._slabs]
        self.lengths: IntArray = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
        self.manifest = manifest
        assert len(self.row_ids) == len(self.lengths) == self._starts[-1]

    @classmethod
    def from_arrays(
        cls,
        input_ids: npt.ArrayLike,
        offsets: npt.ArrayLike,
        row_ids: npt.ArrayLike | None = None,
        second: npt.ArrayLike | None = None,
    ) -> TokenStore:
        """A store in memory. Shapes: input_ids (T,), offsets (N+1,), row_ids (N,) (default 0 … N-1), second (N,)."""
        at = np.asarray(offsets, dtype=np.int64)
        ids = np.arange(len(at) - 1, dtype=np.int64) if row_ids is None else np.asarray(row_ids, dtype=np.int64)
        slab = _Slab(np.asarray(input_ids), at, None if second is None else np.asarray(second, dtype=np.int32))
        return cls([slab], ids)

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.row_ids)

    @property
    def has_pairs(self) -> bool:
        """Whether sequences hold two texts, told apart by `token_types`."""
        return bool(self._slabs) and self._slabs[0].second is not None

    def _where(self, i: int) -> tuple[_Slab, int]:
        part = 0 if len(self._slabs) == 1 else int(np.searchsorted(self._starts, i, side="right")) - 1
        return self._slabs[part], i - int(self._starts[part])

    def sequence(self, i: int) -> Ids:
        """Ids of sequence `i`, shape (n_tokens,): a view, not a copy."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        slab, at = self._where(i)
        return slab.input_ids[slab.offsets[at] : slab.offsets[at + 1]]

    def gather(self, index: npt.ArrayLike) -> tuple[IntArray, npt.NDArray[np.int32]]:
        """Sequences laid end to end, in the order asked for.

        Returns:
            input_ids (T,) int64 and cu_seqlens (B+1,) int32: sequence b is input_ids[cu_seqlens[b]:cu_seqlens[b+1]].
        """
        wanted = np.asarray(index, dtype=np.int64)
        pieces = [self.sequence(i) for i in wanted.tolist()]
        ends = np.zeros(len(pieces) + 1, dtype=np.int32)
        np.cumsum(self.lengths[wanted], out=ends[1:])
        flat = np.concatenate(pieces, dtype=np.int64) if pieces else np.zeros(0, dtype=np.int64)
        return flat, ends

    def token_types(self, index: npt.ArrayLike) -> IntArray | None:
        """Segment ids (0 first text, 1 second) that go with `gather(index)`, shape (T,); None where there are no pairs."""
        if not self.has_pairs:
            return None
        wanted = np.asarray(index, dtype=np.int64)
        lengths = self.lengths[wanted]
        second = np.empty(len(wanted), dtype=np.int64)
        for k, i in enumerate(wanted.tolist()):
            slab, at = self._where(i)
            assert slab.second is not None
            second[k] = slab.second[at]
        position = np.arange(lengths.sum(), dtype=np.int64) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return (position >= np.repeat(second, lengths)).astype(np.int64)

    def select(self, rows: npt.ArrayLike) -> Selection:
        """The sequences of these rows, in this order: one each, or all the windows of each.

        Raises:
            ShardError: a row has no tokens here (they were made from other data).
        """
        wanted = np.asarray(rows, dtype=np.int64)
        order = np.argsort(self.row_ids, kind="stable")
        ids = self.row_ids[order]
        first, last = np.searchsorted(ids, wanted, side="left"), np.searchsorted(ids, wanted, side="right")
        counts = last - first
        if (counts == 0).any():
            missing = wanted[counts == 0]
            raise ShardError(
                f"the token shards hold no tokens of {len(missing):,} rows (row_id {missing[0]} is the first): "
                f"they were made from other data. {_AGAIN}"
            )
        document = np.repeat(np.arange(len(wanted), dtype=np.int64), counts)
        within = np.arange(len(document), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
        return Selection(order[np.repeat(first, counts) + within], document)


def mean_by_document(values: npt.NDArray[np.float32], document: IntArray) -> npt.NDArray[np.float32]:
    """A document's values are the mean of its sequences': (S, C) and (S,) non-decreasing to (R, C).

    Returned unchanged where every document has one sequence. Training's validation, `evaluate` and `predict` all use this.
    """
    if len(document) == 0 or document[-1] + 1 == len(document):
        return values
    starts = np.flatnonzero(np.diff(document, prepend=-1))
    sums = np.add.reduceat(values.astype(np.float64), starts, axis=0)
    return (sums / np.diff(np.append(starts, len(document)))[:, None]).astype(np.float32)


def read_manifest(directory: Path) -> Manifest:
    """The checked manifest of a directory of shards.

    Raises:
        ShardError: there is none, or it is damaged.
    """
    path = directory / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ShardError(f"{path}: no such file, so {directory} holds no finished token shards. {_AGAIN}") from None
    return Manifest.from_bytes(data, path)


def open_store(directory: Path) -> TokenStore:
    """Check every file of a directory of shards against the manifest, then map it.

    Raises:
        ShardError: names the shard that is missing, cut short, damaged or unknown.
    """
    manifest = read_manifest(directory)
    check_files(directory, manifest)
    slabs = [read_tensors(directory / f"{part.name}.safetensors") for part in manifest.parts]
    rows = [read_rows(directory / f"{part.name}.parquet") for part in manifest.parts]
    return TokenStore(slabs, np.concatenate(rows) if rows else np.zeros(0, np.int64), manifest)


def check_files(directory: Path, manifest: Manifest) -> None:
    """Compare every file with the manifest.

    Raises:
        ShardError: names the file.
    """
    tokenizer = directory / TOKENIZER
    if not tokenizer.is_dir() or files.sha256_tree(tokenizer) != manifest.tokenizer["sha256"]:
        raise ShardError(f"{tokenizer}: missing, damaged or not the tokenizer these shards were made with. {_AGAIN}")
    expected = {MANIFEST, TOKENIZER}
    for part in manifest.parts:
        for suffix, digest in (("safetensors", part.safetensors_sha256), ("parquet", part.parquet_sha256)):
            path = directory / f"{part.name}.{suffix}"
            expected.add(path.name)
            if not path.is_file():
                raise ShardError(f"{path}: this shard is missing. {_AGAIN}")
            found = files.sha256_file(path)
            if found != digest:
                raise ShardError(
                    f"{path}: this shard is damaged: its SHA-256 is {found[:12]}…, the manifest says {digest[:12]}…. {_AGAIN}"
                )
    strangers = sorted(path.name for path in directory.iterdir() if path.name not in expected)
    if strangers:
        raise ShardError(f"{directory}: holds files the manifest does not know: {', '.join(strangers[:5])}. {_AGAIN}")


def read_tensors(path: Path) -> _Slab:
    """Map the tensors of a shard without copying them (the safetensors layout: length, JSON header, bytes)."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(size))
    data = (
        np.memmap(path, dtype=np.uint8, mode="r", offset=8 + size) if path.stat().st_size > 8 + size else np.zeros(0, np.uint8)
    )

    def tensor(name: str) -> Ids:
        begin, end = header[name]["data_offsets"]
        return np.asarray(data[begin:end]).view(_DTYPES[header[name]["dtype"]])

    return _Slab(tensor("input_ids"), tensor("offsets"), tensor("second") if "second" in header else None)


def read_rows(path: Path) -> IntArray:
    """Row ids of a shard's sequences, shape (N,)."""
    ids: IntArray = pq.read_table(path, columns=["row_id"])["row_id"].to_numpy()
    return ids
