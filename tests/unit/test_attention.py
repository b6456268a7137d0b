from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dagobert.attention import attention_backward, attention_rows, from_heads, group_sequences, probabilities, to_heads


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=60))
def test_groups_cover_the_batch_in_order(lengths: list[int]) -> None:
    groups = group_sequences(lengths)
    assert [n for g in groups for n in g.lengths] == lengths
    start = first = 0
    for group in groups:
        assert (group.start, group.first) == (start, first)
        assert max(group.lengths) <= group.padded < max(group.lengths) + 16
        assert len(group.lengths) == 1 or len(group.lengths) * group.padded <= 256
        start, first = start + group.rows, first + len(group.lengths)


def test_grouped_sequences_have_one_length() -> None:
    # 64 and 60 round up to 64: four fit into 256 tokens; 20 stands alone; two of 16
    assert [g.lengths for g in group_sequences([64, 60, 60, 60, 60, 20, 16, 16])] == [(64, 60, 60, 60), (60,), (20,), (16, 16)]


@pytest.mark.parametrize("lengths", [[16], [16, 16], [9, 12], [5]])
def test_forward_and_backward_are_those_of_sdpa(lengths: list[int]) -> None:
    heads, size = 3, 8
    (group,) = group_sequences(lengths)
    rows = torch.randn(sum(lengths), 3 * heads * size, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(sum(lengths), heads * size, dtype=torch.float64)
    at, expected = 0, []
    for length in lengths:
        q, k, v = (x.view(length, heads, size).transpose(0, 1) for x in torch.chunk(rows[at : at + length], 3, dim=1))
        expected.append(F.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(length, -1))
        at += length
    torch.cat(expected).backward(grad)

    with torch.no_grad():
        q, k, v = to_heads(rows.detach(), group, 3, heads)
        p = probabilities(q, k, group, size**-0.5)
        out = torch.empty_like(grad)
        from_heads([torch.bmm(p, v)], group, out)
        (g,) = to_heads(grad, group, 1, heads)
        found = torch.empty_like(rows)
        from_heads(attention_backward(g, q, k, v, p, size**-0.5), group, found)
    assert torch.allclose(out, torch.cat(expected), atol=1e-12)
    assert rows.grad is not None
    assert torch.allclose(found, rows.grad, atol=1e-12)


@pytest.mark.parametrize("first_only", [False, True])
def test_the_gpu_kernel_is_called_as_its_contract_says(first_only: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no kernel for a CPU: a stand-in with the signature of `varlen_attn` computes what that would."""
    heads, size, lengths = 3, 8, [9, 4, 1]
    cu_seqlens = torch.tensor([0, 9, 13, 14], dtype=torch.int32)
    key, value = torch.randn(14, heads * size), torch.randn(14, heads * size)
    query = torch.randn(3 if first_only else 14, heads * size)

    def stand_in(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int) -> Tensor:
        assert (int(cu_q.diff().max()), int(cu_k.diff().max())) == (max_q, max_k)
        assert q.shape[1:] == k.shape[1:] == (heads, size)
        out = torch.full_like(q, torch.nan)
        for (a, b), (c, d) in zip(itertools.pairwise(cu_q.tolist()), itertools.pairwise(cu_k.tolist()), strict=True):
            one = (x.transpose(0, 1) for x in (q[a:b], k[c:d], v[c:d]))
            out[a:b] = F.scaled_dot_product_attention(*one).transpose(0, 1)
        return out

    arguments = query, key, value, lengths, 9, cu_seqlens, heads, 0.0, first_only
    expected = attention_rows(*arguments)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", stand_in)
    monkeypatch.setattr("dagobert.attention._varlen_works", lambda *_: True)
    assert torch.allclose(attention_rows(*arguments), expected, atol=1e-6)
