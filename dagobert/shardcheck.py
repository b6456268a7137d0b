"""What is wrong with a directory of token shards, all of it: the deep check behind `dagobert verify`.

`open_store` stops at the first file whose bytes are not those of the manifest. This goes on, and then holds what the files say
against each other: tensors, tables, manifest, tokenizer and the rows they were made from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dagobert import files, shards
from dagobert.errors import DagobertError, TokenizationError
from dagobert.shards import Manifest, Part
from dagobert.tokens import Tokenization


def problems(directory: Path, clean: Path | None = None) -> list[str]:
    """One line for each thing that is wrong, file first; [] where all is well.

    Args:
        directory: the shards.
        clean: clean.parquet they were made from; None: not compared.
    """
    try:
        manifest = shards.read_manifest(directory)
    except DagobertError as error:
        return [str(error)]
    found = _tokenizer_problems(directory, manifest)
    known = {shards.MANIFEST, shards.TOKENIZER}
    sound = []
    for part in manifest.parts:
        bad = _file_problems(directory, part)
        known |= {f"{part.name}.safetensors", f"{part.name}.parquet"}
        found += bad or _content_problems(directory, part, manifest)
        if not bad:
            sound.append(part)
    strangers = sorted(path.name for path in directory.iterdir() if path.name not in known)
    found += [f"{directory / name}: the manifest does not know this file" for name in strangers]
    for what in ("n_rows", "n_sequences", "n_tokens"):
        total = sum(getattr(part, what) for part in manifest.parts)
        if total != getattr(manifest, what):
            found.append(f"{directory / shards.MANIFEST}: {what} is {getattr(manifest, what):,}, the shards' sum {total:,}")
    if not found and clean is not None and clean.is_file():
        found += _row_problems(directory, manifest, clean)
    return found


def _file_problems(directory: Path, part: Part) -> list[str]:
    found = []
    for suffix, digest in (("safetensors", part.safetensors_sha256), ("parquet", part.parquet_sha256)):
        path = directory / f"{part.name}.{suffix}"
        if not path.is_file():
            found.append(f"{path}: missing")
        elif (actual := files.sha256_file(path)) != digest:
            found.append(f"{path}: damaged: SHA-256 {actual[:12]}…, the manifest says {digest[:12]}…")
    return found


def _content_problems(directory: Path, part: Part, manifest: Manifest) -> list[str]:
    tensors, table = (directory / f"{part.name}.{suffix}" for suffix in ("safetensors", "parquet"))
    slab = shards.read_tensors(tensors)
    read = pq.read_table(table)
    columns = {name: read[name].to_numpy() for name in read.column_names}
    lengths = np.diff(slab.offsets)
    special = manifest.special_ids
    rules = {
        f"{tensors}: its offsets do not run from 0 to the number of ids": len(slab.offsets) > 0
        and slab.offsets[0] == 0
        and slab.offsets[-1] == len(slab.input_ids)
        and bool((lengths >= 2).all()),
        f"{tensors}: it does not hold {part.n_sequences:,} sequences of {part.n_tokens:,} tokens": len(lengths)
        == part.n_sequences
        and len(slab.input_ids) == part.n_tokens,
        f"{tensors}: it holds ids outside the vocabulary of {manifest.vocab_size:,}": int(slab.input_ids.max(initial=0))
        < manifest.vocab_size,
        f"{tensors}: it holds sequences longer than {manifest.max_length} tokens": int(lengths.max(initial=0))
        <= manifest.max_length,
    }
    found = [line for line, good in rules.items() if not good]
    if found:
        return found
    first, last = slab.input_ids[slab.offsets[:-1]], slab.input_ids[slab.offsets[1:] - 1]
    unknown = (
        np.add.reduceat((slab.input_ids == special["unk"]).astype(np.int64), slab.offsets[:-1]) if len(lengths) else lengths
    )
    rules = {
        f"{tensors}: not every sequence begins with [CLS] and ends with [SEP]": bool(
            (first == special["cls"]).all() and (last == special["sep"]).all()
        ),
        f"{table}: n_tokens are not the lengths of the sequences": np.array_equal(columns["n_tokens"], lengths),
        f"{table}: n_unknown does not count the [UNK] of the sequences": np.array_equal(columns["n_unknown"], unknown),
        f"{table}: it does not hold {part.n_rows:,} rows": len(np.unique(columns["row_id"])) == part.n_rows,
    }
    return [line for line, good in rules.items() if not good]


def _tokenizer_problems(directory: Path, manifest: Manifest) -> list[str]:
    path = directory / shards.TOKENIZER
    if not path.is_dir():
        return [f"{path}: missing"]
    actual = files.sha256_tree(path)
    if actual != manifest.tokenizer["sha256"]:
        return [f"{path}: damaged: SHA-256 {actual[:12]}…, the manifest says {manifest.tokenizer['sha256'][:12]}…"]
    try:
        tokenizer = Tokenization(path, manifest.max_length, "head", engine="tokenizers")
    except TokenizationError as error:
        return [str(error)]
    if (tokenizer.vocab_size, tokenizer.special_ids) != (manifest.vocab_size, manifest.special_ids):
        return [f"{path}: its vocabulary is not the manifest's"]
    return []


def _row_problems(directory: Path, manifest: Manifest, clean: Path) -> list[str]:
    tables = [shards.read_rows(directory / f"{part.name}.parquet") for part in manifest.parts]
    ours = np.concatenate(tables) if tables else np.zeros(0, np.int64)
    if len(ours):
        ours = ours[np.concatenate([[True], np.diff(ours) != 0])]
    theirs = pq.read_table(clean, columns=["row_id"])["row_id"].to_numpy()
    return [] if np.array_equal(ours, theirs) else [f"{directory}: its rows are not those of {clean}, in their order"]
