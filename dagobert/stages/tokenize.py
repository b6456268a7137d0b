"""Stage `tokenize`: clean.parquet and the checkpoint's tokenizer to token shards.

Streams: at most one shard is in memory. A shard's content depends on its rows alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dagobert import events, files, shards, vocabulary
from dagobert.params import Params
from dagobert.parquet import stream
from dagobert.pretrained import checkpoint_directory
from dagobert.stages import paths
from dagobert.tokens import Tokenization

OUTPUTS: tuple[Path, ...] = (paths.TOKENS,)
_CHUNK = 4096  # rows tokenized at once: about 5 MB of reviews


def inputs(params: Params) -> list[Path]:
    """Files and directories the stage reads."""
    return [paths.CLEAN, Path(params.tokenize.add_words)]


def run(params: Params) -> None:
    """Read the clean text, write the shards."""
    ours = params.tokenize
    name = params.model.name_or_path
    checkpoint = checkpoint_directory(name)
    vocabulary.check_max_length(checkpoint, name, ours.max_length)
    words = vocabulary.read_words(Path(ours.add_words))
    with files.atomic_directory(paths.TOKENS) as out:
        added = vocabulary.save_tokenizer(checkpoint, name, out / shards.TOKENIZER, words)
        tokenization = Tokenization(out / shards.TOKENIZER, ours.max_length, ours.truncation, ours.stride, ours.engine)
        manifest = tokenize_file(paths.CLEAN, out, tokenization, ours.rows_per_shard, name, added)
    shown = {"row": manifest.n_rows, "sequence": manifest.n_sequences, "token": manifest.n_tokens, "shard": len(manifest.parts)}
    events.say(", ".join(f"{n:,} {what}{'' if n == 1 else 's'}" for what, n in shown.items()) + f", by {tokenization.engine}")
    events.say(lost(paths.TOKENS, manifest))
    if words:
        events.say(f"{len(added):,} of the {len(words):,} words in {ours.add_words} were new and are added to the vocabulary")


def tokenize_file(
    clean: Path, out: Path, tokenization: Tokenization, rows_per_shard: int, name: str, added: Sequence[str] = ()
) -> shards.Manifest:
    """Write the shards of one file into `out`, where the tokenizer already lies; the manifest comes last.

    Args:
        clean: clean.parquet.
        out: directory of the shards.
        tokenization: how text becomes ids.
        rows_per_shard: rows in one shard.
        name: the checkpoint's name, for the manifest.
        added: words that the checkpoint's vocabulary did not have.

    Raises:
        TokenizationError: a sample differs from the reference tokenizer.
    """
    parts: list[shards.Part] = []
    schema, rows_in = pq.read_schema(clean), pq.read_metadata(clean).num_rows
    with events.progress("tokenizing", rows_in) as bar:
        pending: list[shards.Sequences] = []
        for batch in _chunks(clean, rows_per_shard):
            pair = pc.fill_null(batch["text_pair"], "") if "text_pair" in batch.schema.names else None
            rows = batch["row_id"].to_numpy()
            pending.append(tokenization.sequences(batch["text"], rows, pair, check=True))
            if sum(piece.n_rows for piece in pending) == rows_per_shard:
                parts.append(shards.write_part(out, len(parts), join(pending)))
                pending = []
            bar.update(batch.num_rows)
        if pending:
            parts.append(shards.write_part(out, len(parts), join(pending)))
    manifest = shards.Manifest(
        tokenizer={"name_or_path": name, "sha256": files.sha256_tree(out / shards.TOKENIZER), "added": [*added]},
        max_length=tokenization.max_length,
        truncation=tokenization.truncation,
        stride=tokenization.stride,
        vocab_size=tokenization.vocab_size,
        special_ids=tokenization.special_ids,
        n_rows=sum(part.n_rows for part in parts),
        n_sequences=sum(part.n_sequences for part in parts),
        n_tokens=sum(part.n_tokens for part in parts),
        clean=clean_recipe(schema),
        parts=tuple(parts),
    )
    shards.write_manifest(out, manifest)
    return manifest


def lost(directory: Path, manifest: shards.Manifest) -> str:
    """What the model will not see, in words: tokens cut off and words the vocabulary does not have."""
    cut = rows = unknown = 0
    for part in manifest.parts:
        table = pq.read_table(directory / f"{part.name}.parquet", columns=["n_truncated", "n_unknown"])
        cut += pc.sum(table["n_truncated"]).as_py() or 0
        rows += pc.sum(pc.greater(table["n_truncated"], 0)).as_py() or 0
        unknown += pc.sum(table["n_unknown"]).as_py() or 0
    whole = max(manifest.n_tokens + cut, 1)
    return (
        f"{rows:,} rows ({rows / max(manifest.n_rows, 1):.1%}) are cut to {manifest.max_length} tokens, which loses "
        f"{cut / whole:.1%} of all tokens; {unknown / max(manifest.n_tokens, 1):.2%} are unknown words"
    )


def clean_recipe(schema: pa.Schema) -> dict[str, Any]:
    """The recipe that `clean` left in the schema, to repeat it when predicting."""
    stored = (schema.metadata or {}).get(b"dagobert")
    recipe: dict[str, Any] = json.loads(stored).get("clean", {}) if stored else {}
    return recipe


def join(pieces: list[shards.Sequences]) -> shards.Sequences:
    """Sequences of several chunks as one."""
    if len(pieces) == 1:
        return pieces[0]
    lengths = np.concatenate([np.diff(piece.offsets) for piece in pieces])
    seconds = [piece.second for piece in pieces if piece.second is not None]
    return shards.Sequences(
        np.concatenate([piece.input_ids for piece in pieces]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([piece.row_ids for piece in pieces]),
        np.concatenate([piece.n_truncated for piece in pieces]),
        np.concatenate([piece.n_unknown for piece in pieces]),
        np.concatenate(seconds) if seconds else None,
    )


def _chunks(clean: Path, rows_per_shard: int) -> Iterator[pa.RecordBatch]:
    """Batches of at most `_CHUNK` rows, cut where a shard is full."""
    room = rows_per_shard
    for batch in stream(clean, ("row_id", "text", "text_pair"), _CHUNK):
        rest = batch
        while rest.num_rows:
            piece = rest.slice(0, min(room, rest.num_rows))
            rest = rest.slice(piece.num_rows)
            room = room - piece.num_rows or rows_per_shard
            yield piece
