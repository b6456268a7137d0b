"""Which sequences make each optimizer step, and how a step is cut into micro-batches.

The plan is a pure function of (lengths, seed, epoch): nothing is stored, so a resumed run continues with the batch it was
killed in. The packed engine computes no padding, so its batches are plain random draws; batches of similar length
(`grouped`) are for encoders that pad. Inside a step the sequences are sorted by length: neighbours of one length attend in
one call.

Shapes: N sequences, B sequences of a micro-batch, T their tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dagobert.errors import BatchBudgetError
from dagobert.shards import TokenStore

IntArray = npt.NDArray[np.int64]

_MEGABATCH = 50  # steps whose sequences are sorted together where batches are grouped by length
_ROW_COUNTS = 8  # numbers of rows that micro-batches are filled up to, where their shapes are fixed
_ALIGN = 64  # tokens of a packed batch are rounded up to this: oneDNN builds a kernel for each new shape, 1 to 3 ms a product


def epoch_order(n: int, seed: int, epoch: int, weights: npt.NDArray[np.float64] | None = None) -> IntArray:
    """Sequences of an epoch in the order they are drawn, shape (n,).

    Args:
        n: sequences to draw.
        weights: probability of each (drawn with replacement); None: each exactly once.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    if weights is None:
        return generator.permutation(n).astype(np.int64)
    return generator.choice(n, size=n, p=weights / weights.sum()).astype(np.int64)


def epoch_steps(
    lengths: IntArray,
    batch_size: int,
    seed: int,
    epoch: int,
    *,
    tokens: int | None = None,
    grouped: bool = False,
    weights: npt.NDArray[np.float64] | None = None,
) -> list[IntArray]:
    """The optimizer steps of an epoch: index arrays into `lengths`, each sorted from long to short.

    Args:
        lengths: tokens per sequence, shape (N,).
        batch_size: sequences a step (the last may have fewer); unused where `tokens` is given.
        seed: seed of the run.
        epoch: 0-based.
        tokens: most tokens a step; sequences are taken in random order until the next would not fit.
        grouped: put sequences of similar length into one step.
        weights: draw with these probabilities instead of each once.
    Raises:
        BatchBudgetError: a sequence is longer than `tokens`.
    """
    order = epoch_order(len(lengths), seed, epoch, weights)
    if grouped:
        block = _MEGABATCH * batch_size
        pieces = [order[i : i + block] for i in range(0, len(order), block)]
        order = np.concatenate([longest_first(piece, lengths) for piece in pieces]) if pieces else order
    if tokens is None:
        steps = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    else:
        steps = cut(order, lengths, tokens)
    if grouped:
        shuffle = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, 1])))
        steps = [steps[i] for i in shuffle.permutation(len(steps))]
    return [longest_first(step, lengths) for step in steps]


def longest_first(index: IntArray, lengths: IntArray) -> IntArray:
    """`index` from long to short sequences; equals keep their order."""
    ordered: IntArray = index[np.argsort(-lengths[index], kind="stable")]
    return ordered


def cut(index: IntArray, lengths: IntArray, budget: int, *, padded: bool = False) -> list[IntArray]:
    """Cut an order into consecutive pieces of at most `budget` tokens, padding included where `padded`.

    Raises:
        BatchBudgetError: names the longest sequence and the smallest budget that would hold it.
    """
    of = lengths[index]
    if len(of) and of.max() > budget:
        raise BatchBudgetError(
            f"a sequence of {of.max()} tokens does not fit into a batch of {budget} tokens. "
            f"Raise train.tokens_per_batch to at least {of.max()}, or lower tokenize.max_length."
        )
    pieces: list[IntArray] = []
    begin = total = longest = 0
    for i, length in enumerate(of.tolist()):
        longest_now = max(longest, length)
        total_now = (i + 1 - begin) * longest_now if padded else total + length
        if total_now > budget:
            pieces.append(index[begin:i])
            begin, longest_now, total_now = i, length, length
        longest, total = longest_now, total_now
    if begin < len(index):
        pieces.append(index[begin:])
    return pieces


@dataclass(frozen=True)
class Shapes:
    """Few shapes for all micro-batches, so that a compiled kernel or a recorded graph fits the next one too.

    The tokens are filled up to a multiple of `multiple` and the sequences to one of 64 by dummy sequences at the end. A dummy
    has at least one token and none is longer than `longest`: no kernel meets an empty sequence or a row that is nobody's.
    """

    multiple: int
    longest: int

    @classmethod
    def within(cls, budget: int, longest: int) -> Shapes:
        """Those of micro-batches of at most `budget` tokens in sequences of at most `longest`: about eight numbers of rows."""
        return cls(multiple=max(_ALIGN, budget // _ROW_COUNTS // _ALIGN * _ALIGN), longest=max(2, longest))

    @classmethod
    def rounded(cls, longest: int) -> Shapes:
        """Numbers of rows and of sequences rounded up to 64: few enough that oneDNN's kernels for them do not pile up."""
        return cls(multiple=_ALIGN, longest=max(2, longest))

    def dummies(self, lengths: Sequence[int]) -> list[int]:
        """Lengths of the sequences to put behind sequences of these lengths."""
        least = -(-(self.multiple - 1) // (self.longest - 1))  # so many hold all tokens that a multiple may ask for
        n = -(-(len(lengths) + least) // _ALIGN) * _ALIGN - len(lengths)
        total = sum(lengths)
        missing = -(-(total + n) // self.multiple) * self.multiple - total
        return [missing // n + (i < missing % n) for i in range(n)]


@dataclass(frozen=True)
class Batch:
    """A packed micro-batch: sequences laid end to end. Shapes: B sequences, S of them and dummies (B where there are none).

    Attributes:
        input_ids: (T,) int64; on a CPU rounded up to a multiple of 64 with id 0.
        token_types: segment ids (T,), or None where there is one text a row.
        positions: of each token in its sequence, (T,) int64; 0 past the last sequence.
        lengths: tokens of each sequence, B numbers.
        spans: the same with the dummies at the end, S numbers.
        longest: no sequence has more tokens; fixed where the shapes are.
        cu_seqlens: (S+1,) int32.
        first_token, first_sequence: how much of the optimizer step comes before.
    """

    input_ids: Tensor
    token_types: Tensor | None
    positions: Tensor
    lengths: tuple[int, ...]
    spans: tuple[int, ...]
    longest: int
    cu_seqlens: Tensor
    first_token: int = 0
    first_sequence: int = 0

    @property
    def first_rows(self) -> Tensor:
        """Where each sequence begins ([CLS]), shape (S,) int64."""
        return self.cu_seqlens[:-1].long()


def pack(
    store: TokenStore,
    index: npt.ArrayLike,
    device: torch.device | str = "cpu",
    *,
    first_token: int = 0,
    first_sequence: int = 0,
    shapes: Shapes | None = None,
) -> Batch:
    """Lay sequences of a store end to end, in the order asked for; `shapes`: fill up with dummies."""
    ids, cu_seqlens = store.gather(index)
    lengths: list[int] = np.diff(cu_seqlens).tolist()
    dummies = [] if shapes is None else shapes.dummies(lengths)
    spans = lengths + dummies
    # On a GPU nothing else is rounded: varlen attention leaves rows past the last sequence unwritten.
    align = _ALIGN if torch.device(device).type == "cpu" else 1
    total = -(-sum(spans) // align) * align
    types = store.token_types(index)
    return Batch(
        on_device(_filled(ids, total), device),
        None if types is None else on_device(_filled(types, total), device),
        on_device(_filled(_positions(spans), total), device),
        tuple(lengths),
        tuple(spans),
        max(spans, default=0) if shapes is None else shapes.longest,
        on_device(np.cumsum([0, *spans], dtype=np.int32), device),
        first_token,
        first_sequence,
    )


def on_device(values: npt.NDArray[Any], device: torch.device | str) -> Tensor:
    """An array as a tensor there. The copy to a GPU waits for nothing: it starts from memory that the system does not move."""
    tensor = torch.from_numpy(values)
    return tensor if torch.device(device).type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _positions(lengths: Sequence[int]) -> IntArray:
    of = np.asarray(lengths, dtype=np.int64)
    return np.arange(of.sum(), dtype=np.int64) - np.repeat(np.cumsum(of) - of, of)


def _filled(values: IntArray, total: int) -> IntArray:
    out = np.zeros(total, dtype=np.int64)
    out[: len(values)] = values
    return out
