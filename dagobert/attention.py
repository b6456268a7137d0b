"""Attention inside each sequence of a packed batch, never across.

On a CPU, explicit products over groups of sequences of (nearly) one length, because the fused kernel is slow there: one
sequence of 256 tokens, 12 heads of 32, one Zen 4 core, forward + backward: 2.7 ms in bf16, against 7.0 ms (fp32) and 10.3
ms (bf16) of `scaled_dot_product_attention`. Lengths are rounded up to a multiple of 16 with masked columns: a new shape
costs oneDNN about 1 ms a product, and unaligned rows cost more than the padding. On a GPU: `torch.nn.attention.varlen`.

Shapes: T tokens, B sequences, H heads, D head size, n sequences in a group, L their padded length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_ALIGN = 16
_GROUP_TOKENS = 256  # sequences shorter than this are taken together, so that a product is worth its call


@dataclass(frozen=True)
class Group:
    """Neighbouring sequences that attend in one call: they begin at row `start`, and none is longer than `padded`."""

    start: int
    first: int
    lengths: tuple[int, ...]
    padded: int

    @property
    def rows(self) -> int:
        """Tokens of the group."""
        return sum(self.lengths)

    @property
    def full(self) -> bool:
        """Whether no sequence is shorter than the padded length."""
        return all(length == self.padded for length in self.lengths)


def group_sequences(lengths: Sequence[int]) -> list[Group]:
    """Cut a packed batch into groups: neighbours of one length (rounded up to 16), in powers of two, up to 256 tokens."""
    groups: list[Group] = []
    start = i = 0
    while i < len(lengths):
        padded = -(-lengths[i] // _ALIGN) * _ALIGN
        most = max(1, _GROUP_TOKENS // padded)
        run = 1
        while run < most and i + run < len(lengths) and -(-lengths[i + run] // _ALIGN) * _ALIGN == padded:
            run += 1
        run = 1 << (run.bit_length() - 1)
        chosen = tuple(lengths[i : i + run])
        groups.append(Group(start, i, chosen, padded))
        start += sum(chosen)
        i += run
    return groups


def to_heads(rows: Tensor, group: Group, parts: int, heads: int) -> Tensor:
    """Rows of a group (tokens, parts·H·D) as zero-padded heads (parts, n·H, L, D)."""
    n, padded = len(group.lengths), group.padded
    size = rows.shape[1] // (parts * heads)
    if group.full:
        return rows.view(n, padded, parts, heads, size).permute(2, 0, 3, 1, 4).reshape(parts, n * heads, padded, size)
    out = rows.new_zeros(parts, n, heads, padded, size)
    at = 0
    for i, length in enumerate(group.lengths):
        out[:, i, :, :length] = rows[at : at + length].view(length, parts, heads, size).permute(1, 2, 0, 3)
        at += length
    return out.view(parts, n * heads, padded, size)


def from_heads(values: Sequence[Tensor], group: Group, rows: Tensor) -> None:
    """The inverse: write heads, one (n·H, L, D) a part, into the group's rows (tokens, parts·H·D)."""
    n, padded, parts = len(group.lengths), group.padded, len(values)
    size = values[0].shape[-1]
    heads = values[0].shape[0] // n
    for part, value in enumerate(values):
        by_sequence = value.view(n, heads, padded, size).transpose(1, 2)  # (n, L, H, D)
        if group.full:
            rows.view(n, padded, parts, heads, size)[:, :, part] = by_sequence
            continue
        at = 0
        for i, length in enumerate(group.lengths):
            rows[at : at + length].view(length, parts, heads, size)[:, part] = by_sequence[i, :length]
            at += length


def probabilities(query: Tensor, key: Tensor, group: Group, scale: float) -> Tensor:
    """softmax(scale · query · keyᵀ) with the columns past each sequence's end masked: (n·H, Lq, L)."""
    empty = query.new_empty(())
    scores = torch.baddbmm(empty, query, key.transpose(1, 2), beta=0, alpha=scale)
    if not group.full:
        n = len(group.lengths)
        by_sequence = scores.view(n, -1, query.shape[1], group.padded)
        for i, length in enumerate(group.lengths):
            if length < group.padded:
                by_sequence[i, :, :, length:] = float("-inf")
    return torch.softmax(scores, -1)


def attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, weights: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value. grad (n·H, Lq, D), weights (n·H, Lq, L) are the probabilities."""
    empty = grad.new_empty(())
    d_value = torch.bmm(weights.transpose(1, 2), grad)
    d_weights = torch.bmm(grad, value.transpose(1, 2))
    d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
    d_query = torch.baddbmm(empty, d_scores, key, beta=0, alpha=scale)
    d_key = torch.baddbmm(empty, d_scores.transpose(1, 2), query, beta=0, alpha=scale)
    return d_query, d_key, d_value


def attention_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Sequence[int],
    longest: int,
    cu_seqlens: Tensor,
    heads: int,
    dropout: float,
    first_only: bool,
) -> Tensor:
    """Attention that autograd differentiates: the plain path, and the GPU's. No length is above `longest`.

    Shapes: query (T, H·D), or (B, H·D) where `first_only`; key, value (T, H·D); cu_seqlens (B+1,) int32. Returns query's shape.
    """
    if _varlen_works(query, dropout):
        return _varlen(query, key, value, longest, cu_seqlens, heads, first_only)
    size = query.shape[1] // heads
    out: list[Tensor] = []
    at = 0
    with torch.autocast(query.device.type, enabled=False):
        for i, length in enumerate(lengths):
            q = query[i : i + 1] if first_only else query[at : at + length]
            k, v = key[at : at + length], value[at : at + length]
            q, k, v = (x.float().view(1, -1, heads, size).transpose(1, 2) for x in (q, k, v))
            out.append(F.scaled_dot_product_attention(q, k, v, dropout_p=dropout).transpose(1, 2).reshape(-1, heads * size))
            at += length
        rows = torch.cat(out).to(query.dtype)
    missing = query.shape[0] - rows.shape[0]
    return F.pad(rows, (0, 0, 0, missing)) if missing else rows


def _varlen_works(query: Tensor, dropout: float) -> bool:
    return query.device.type == "cuda" and dropout == 0.0 and query.dtype in (torch.bfloat16, torch.float16)


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, longest: int, cu_seqlens: Tensor, heads: int, first_only: bool
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    cu_query = torch.arange(len(cu_seqlens), dtype=torch.int32, device=query.device) if first_only else cu_seqlens
    q, k, v = (x.view(x.shape[0], heads, -1) for x in (query, key, value))
    out = varlen_attn(q, k, v, cu_query, cu_seqlens, 1 if first_only else longest, longest)
    assert isinstance(out, Tensor)
    return out.reshape(query.shape)
