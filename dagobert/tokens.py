"""Texts to ragged token ids: BERT WordPiece, truncation, windows and sentence pairs.

Text is split by nanotoken where it is installed and supports the tokenizer, else by `tokenizers`; the ids are the same, and
`check_sample` stops a run in which they are not. Truncation and special tokens are laid out here, for all rows of a chunk.

Truncation keeps, of a text of n tokens and a budget b (max_length less the special tokens) with n > b:
head: the first b; tail: the last b; head+tail: the first ceil(b / 4) and the last b - ceil(b / 4), which at 512 are the 128 and
382 of Sun et al. 2019, "How to Fine-Tune BERT for Text Classification?"; windows: all, as sequences of up to b tokens of which
neighbours share `stride`. Two texts share b as longest-first does: the longer gives first, and each keeps its part as above.

Shapes: N texts, S sequences (S = N without windows), T tokens.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dagobert.errors import TokenizationError
from dagobert.shards import Ids, IntArray, Sequences, TokenStore, id_dtype

if TYPE_CHECKING:
    import tokenizers

Truncation = Literal["head", "tail", "head+tail", "windows"]
Engine = Literal["auto", "tokenizers"]
_SPECIAL = {"pad": "pad_token", "cls": "cls_token", "sep": "sep_token", "unk": "unk_token", "mask": "mask_token"}
_CACHE = 1 << 19  # words nanotoken remembers in each thread: at its own 2^20 memory still grows after half a million rows
_SAMPLE = 8  # texts of a chunk that are tokenized twice: half of them evenly spread, half not ASCII


class Ragged(NamedTuple):
    """Ids of texts without special tokens, laid end to end. Shapes: ids (T,) unsigned, offsets (N+1,)."""

    ids: Ids
    offsets: IntArray


class Tokenization:
    """How text becomes ids, as one object that training and prediction share.

    Attributes:
        vocab_size: number of ids, added words included.
        special_ids: ids of pad, cls, sep, unk and mask (None where the tokenizer has none).
        engine: `nanotoken` or `tokenizers`; the ids do not depend on it.
    """

    def __init__(
        self, directory: Path, max_length: int, truncation: Truncation, stride: int | None = None, engine: Engine = "auto"
    ) -> None:
        """Load the tokenizer of a directory that holds `tokenizer.json`.

        Args:
            directory: a tokenizer as `save_pretrained` writes it.
            max_length: most tokens of a sequence, special tokens included.
            truncation: which part of a longer text is kept.
            stride: tokens that neighbouring windows share; only with windows.
            engine: `tokenizers` leaves nanotoken out.

        Raises:
            TokenizationError: no tokenizer there, not one that writes [CLS] … [SEP], or no room for a window to move.
        """
        self._reference = _load_reference(directory)
        self.max_length, self.truncation, self.stride = max_length, truncation, stride if truncation == "windows" else None
        self.vocab_size: int = self._reference.get_vocab_size(with_added_tokens=True)
        self.special_ids = _special_ids(directory, self._reference)
        self._cls, self._between, self._sep = _frame(self._reference, directory)
        self._unk = self.special_ids["unk"]
        self._fast = _load_nanotoken(self._reference.to_str()) if engine == "auto" else None
        self.engine = "tokenizers" if self._fast is None else "nanotoken"
        if truncation == "windows" and not 0 <= (stride if stride is not None else -1) < max_length - 2:
            raise TokenizationError(
                f"tokenize.stride is {stride!r}: windows of {max_length} tokens hold {max_length - 2} of the text, so "
                f"neighbours can share 0 to {max_length - 3}."
            )

    def split(self, texts: pa.Array | pa.ChunkedArray) -> Ragged:
        """Whole texts to ids without special tokens."""
        if self._fast is None:
            return reference_split(self._reference, texts)
        ragged = self._fast.encode_batch(texts.cast(pa.large_binary()).to_pylist(), add_special_tokens=False)
        return Ragged(ragged.ids, ragged.offsets)

    def sequences(
        self,
        texts: pa.Array | pa.ChunkedArray,
        row_ids: npt.ArrayLike | None = None,
        second: pa.Array | pa.ChunkedArray | None = None,
        check: bool = False,
    ) -> Sequences:
        """Texts (or pairs of texts) to model input without padding.

        Args:
            texts: N strings.
            row_ids: row of each text, shape (N,); default 0 … N-1.
            second: the second text of each pair, N strings.
            check: also tokenize a sample with the reference.
        Raises:
            TokenizationError: the sample differs from the reference.
        """
        rows = np.arange(len(texts), dtype=np.int64) if row_ids is None else np.asarray(row_ids, dtype=np.int64)
        first = self.split(texts)
        if check:
            self.check_sample(texts, first, rows)
        if second is None:
            laid = self._single(first)
        else:
            other = self.split(second)
            if check:
                self.check_sample(second, other, rows)
            laid = self._pairs(first, other)
        offsets, ids = laid.offsets, laid.ids.astype(id_dtype(self.vocab_size), copy=False)
        return Sequences(ids, offsets, rows[laid.text], laid.n_truncated, _count(ids, offsets, self._unk), laid.second)

    def encode(self, texts: pa.Array | pa.ChunkedArray) -> tuple[Ids, IntArray, IntArray]:
        """Texts to (input_ids (T,), offsets (S+1,), n_truncated (S,)); S = N unless truncation is windows."""
        found = self.sequences(texts)
        return found.input_ids, found.offsets, found.n_truncated

    def store(self, texts: pa.Array | pa.ChunkedArray, second: pa.Array | pa.ChunkedArray | None = None) -> TokenStore:
        """Texts to a store in memory whose `row_ids` are the positions of the texts."""
        found = self.sequences(texts, second=second)
        return TokenStore.from_arrays(found.input_ids, found.offsets, found.row_ids, found.second)

    def check_sample(self, texts: pa.Array | pa.ChunkedArray, found: Ragged, row_ids: IntArray) -> None:
        """Compare some texts of a chunk with the reference.

        Raises:
            TokenizationError: names the row and the first token that differs.
        """
        if self._fast is None or len(texts) == 0:
            return
        wide = np.flatnonzero(pc.not_equal(pc.binary_length(texts), pc.utf8_length(texts)).to_numpy(zero_copy_only=False))
        spread = np.linspace(0, len(texts) - 1, _SAMPLE // 2).astype(np.int64)
        if len(wide):
            spread = np.concatenate([spread, wide[np.linspace(0, len(wide) - 1, _SAMPLE // 2).astype(np.int64)]])
        sample = np.unique(spread)
        expected = reference_split(self._reference, texts.take(pa.array(sample)))
        for k, i in enumerate(sample.tolist()):
            ours = found.ids[found.offsets[i] : found.offsets[i + 1]]
            theirs = expected.ids[expected.offsets[k] : expected.offsets[k + 1]]
            if not np.array_equal(ours, theirs):
                n = min(len(ours), len(theirs))
                at = int(np.argmax(ours[:n] != theirs[:n])) if (ours[:n] != theirs[:n]).any() else n
                words = [self._reference.id_to_token(int(a[at])) if at < len(a) else None for a in (ours, theirs)]
                raise TokenizationError(
                    f"row_id {row_ids[i]}: nanotoken and the reference (tokenizers) differ at token {at}: {words[0]!r} against "
                    f"{words[1]!r}. Set tokenize.engine: tokenizers, and please report the text to nanotoken."
                )

    def _single(self, raw: Ragged) -> _Laid:
        """[CLS] text [SEP], one or more sequences a text."""
        lengths = np.diff(raw.offsets)
        budget = self.max_length - 2
        text = np.arange(len(lengths), dtype=np.int64)
        if self.stride is not None:
            text, starts, kept = windows(lengths, budget, self.stride)
            head, tail, begin = kept, np.zeros_like(kept), raw.offsets[text] + starts
            lost = np.zeros_like(kept)
        else:
            head, tail = keep(lengths, np.minimum(lengths, budget), self.truncation)
            begin, lost = raw.offsets[:-1], lengths - head - tail
        end = raw.offsets[text + 1]
        t = len(raw.ids)  # [CLS] and [SEP] stand behind the texts in the pool
        pool = np.concatenate([raw.ids, np.array([self._cls, self._sep], dtype=raw.ids.dtype)])
        one = np.ones_like(head)
        ids, offsets = lay_out(
            pool, np.stack([one * t, begin, end - tail, one * (t + 1)], 1), np.stack([one, head, tail, one], 1)
        )
        return _Laid(ids, offsets, text, lost, None)

    def _pairs(self, first: Ragged, second: Ragged) -> _Laid:
        """[CLS] text [SEP] second text [SEP] (what stands between the texts is the tokenizer's)."""
        if self.stride is not None:
            raise TokenizationError(
                "tokenize.truncation is windows, which takes one text a row, and the data has pairs of texts."
            )
        a, b = np.diff(first.offsets), np.diff(second.offsets)
        special = [self._cls, *self._between, self._sep]
        kept_a, kept_b = longest_first(a, b, self.max_length - len(special))
        (head_a, tail_a), (head_b, tail_b) = keep(a, kept_a, self.truncation), keep(b, kept_b, self.truncation)
        pool = np.concatenate([first.ids, second.ids, np.array(special, dtype=first.ids.dtype)])
        t = len(pool) - len(special)
        at_b = len(first.ids) + second.offsets
        one = np.ones_like(a)
        starts = [one * t, first.offsets[:-1], first.offsets[1:] - tail_a, one * (t + 1)]
        starts += [at_b[:-1], at_b[1:] - tail_b, one * (len(pool) - 1)]
        lengths = [one, head_a, tail_a, one * len(self._between), head_b, tail_b, one]
        ids, offsets = lay_out(pool, np.stack(starts, 1), np.stack(lengths, 1))
        begins = kept_a + 1 + len(self._between)
        return _Laid(ids, offsets, np.arange(len(a), dtype=np.int64), a - kept_a + b - kept_b, begins)


class _Laid(NamedTuple):
    """Sequences with special tokens, and the text each comes from."""

    ids: Ids
    offsets: IntArray
    text: IntArray
    n_truncated: IntArray
    second: IntArray | None


def keep(lengths: IntArray, kept: IntArray, truncation: str) -> tuple[IntArray, IntArray]:
    """How many tokens stay at the head and at the tail of each text; whole texts count as head.

    Shapes: lengths, kept (N,) to two arrays (N,).
    """
    cut = lengths > kept
    if truncation == "head":
        head = kept
    elif truncation == "tail":
        head = np.where(cut, 0, kept)
    else:
        head = np.where(cut, (kept + 3) // 4, kept)
    return head, kept - head


def longest_first(a: IntArray, b: IntArray, budget: int) -> tuple[IntArray, IntArray]:
    """Tokens that each text of a pair keeps within a common budget, as `tokenizers` does: the longer one gives first.

    Shapes: (N,), (N,) to (N,), (N,). Where both exceed half, an odd token goes to the longer, and to the second of equals.
    """
    short, long = np.minimum(a, b), np.maximum(a, b)
    both = short > budget // 2
    kept_short = np.where(a + b <= budget, short, np.where(both, budget // 2, short))
    kept_long = np.where(a + b <= budget, long, np.where(both, budget - budget // 2, budget - short))
    swapped = a > b
    return np.where(swapped, kept_long, kept_short), np.where(swapped, kept_short, kept_long)


def windows(lengths: IntArray, budget: int, stride: int) -> tuple[IntArray, IntArray, IntArray]:
    """Overlapping windows over each text; the last one ends with the text and may be shorter.

    Returns:
        text, start, length, each of shape (S,): window s covers tokens start[s] … start[s] + length[s] - 1 of its text.
    """
    step = budget - stride
    counts = 1 + np.maximum(0, -(-(lengths - budget) // step))
    text = np.repeat(np.arange(len(lengths), dtype=np.int64), counts)
    start = (np.arange(len(text), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)) * step
    return text, start, np.minimum(budget, lengths[text] - start)


def lay_out(pool: Ids, starts: IntArray, lengths: IntArray) -> tuple[Ids, IntArray]:
    """Build sequences of P pieces each out of a pool of ids.

    Shapes: pool (T0,), starts and lengths (S, P) to ids (T,), offsets (S+1,).
    """
    size = lengths.sum(axis=1)
    offsets = np.zeros(len(size) + 1, dtype=np.int64)
    np.cumsum(size, out=offsets[1:])
    each = lengths.ravel()
    wide = np.int32 if max(len(pool), int(offsets[-1])) < 2**31 else np.int64
    shift = (starts.ravel() - (np.cumsum(each) - each)).astype(wide)
    return pool[np.repeat(shift, each) + np.arange(offsets[-1], dtype=wide)], offsets


def reference_split(reference: tokenizers.Tokenizer, texts: pa.Array | pa.ChunkedArray) -> Ragged:
    """Whole texts to ids without special tokens, by `tokenizers`."""
    rows = [encoding.ids for encoding in reference.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)]
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    flat = np.fromiter((i for row in rows for i in row), dtype=np.uint32, count=int(offsets[-1]))
    return Ragged(flat, offsets)


def _count(ids: Ids, offsets: IntArray, wanted: int | None) -> IntArray:
    """How often one id stands in each sequence (no sequence is empty). Shapes: (T,), (S+1,) to (S,)."""
    if wanted is None or len(offsets) == 1:
        return np.zeros(len(offsets) - 1, dtype=np.int64)
    at = np.flatnonzero(ids == wanted)
    return np.bincount(np.searchsorted(offsets, at, side="right") - 1, minlength=len(offsets) - 1).astype(np.int64)


def _load_reference(directory: Path) -> tokenizers.Tokenizer:
    import tokenizers

    path = directory / "tokenizer.json"
    if not path.is_file():
        raise TokenizationError(f"{path}: no such file, so {directory} holds no tokenizer.")
    try:
        reference = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises the bare class
        raise TokenizationError(f"{path}: cannot be read as a tokenizer: {error}") from None
    reference.no_truncation()
    reference.no_padding()
    return reference


def _load_nanotoken(tokenizer_json: str) -> Any | None:
    try:
        import nanotoken
    except ImportError:
        return None
    if "NANOTOKEN_CACHE_ENTRIES" not in os.environ:
        nanotoken.set_cache_entries(_CACHE)
    try:
        return nanotoken.Tokenizer.from_json(tokenizer_json)
    except nanotoken.UnsupportedTokenizerError:
        return None


def _special_ids(directory: Path, reference: tokenizers.Tokenizer) -> dict[str, int | None]:
    path = directory / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    ids: dict[str, int | None] = {}
    for name, key in _SPECIAL.items():
        token = config.get(key, f"[{name.upper()}]")
        ids[name] = reference.token_to_id(token["content"] if isinstance(token, dict) else str(token))
    return ids


def _frame(reference: tokenizers.Tokenizer, directory: Path) -> tuple[int, tuple[int, ...], int]:
    """Ids before a text, between two texts and after them, taken from what the tokenizer puts around nothing.

    BERT writes [CLS] a [SEP] b [SEP], RoBERTa <s> a </s></s> b </s>.
    """
    single, pair = reference.encode("").ids, reference.encode("", "").ids
    if len(single) != 2 or len(pair) < 3 or [pair[0], pair[-1]] != single:
        raise TokenizationError(
            f"{directory}: this tokenizer frames an empty text as {single} and an empty pair as {pair}; one of the BERT family "
            f"writes [CLS] text [SEP] and [CLS] text [SEP] text [SEP]. Choose another checkpoint in model.name_or_path."
        )
    return single[0], tuple(pair[1:-1]), single[1]
