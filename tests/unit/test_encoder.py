"""The packed forward against transformers' own padded one: logits and every gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from dagobert.batches import pack
from dagobert.encoder import PackedBert
from dagobert.shards import TokenStore

LENGTHS = [1, 2, 3, 16, 17, 30, 31, 32, 33, 47, 64, 5, 5, 5, 5, 5]


def small_bert(**changes: Any) -> BertModel:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80,
        "max_position_embeddings": 64, "initializer_range": 0.15,
    }  # fmt: skip
    model = BertModel(BertConfig(**(settings | changes)), add_pooling_layer=False)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)  # biases and LayerNorm start at 0 and 1, which would hide mistakes
    return model.eval()


def make_store(lengths: Sequence[int], vocabulary: int = 97, seed: int = 0) -> TokenStore:
    generator = np.random.default_rng(seed)
    ids = generator.integers(1, vocabulary, size=sum(lengths)).astype(np.uint16)
    return TokenStore.from_arrays(ids, np.concatenate([[0], np.cumsum(lengths)]))


def padded(model: BertModel, store: TokenStore, order: Sequence[int]) -> Tensor:
    """[CLS] states of the stock model on a padded batch: (B, d)."""
    longest = max(int(store.lengths[i]) for i in order)
    ids = torch.zeros(len(order), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, i in enumerate(order):
        sequence = store.sequence(i).astype(np.int64)
        ids[row, : len(sequence)] = torch.from_numpy(sequence)
        mask[row, : len(sequence)] = 1
    out: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    return out


def gradients(model: BertModel, out: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(1)
    (out.float() * torch.randn(out.shape)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("lengths", [LENGTHS, [1], [64], [2, 2], [64] * 3 + [1], list(range(1, 40))])
def test_states_and_every_gradient_are_those_of_transformers(fused: bool, lengths: list[int]) -> None:
    model, store = small_bert(), make_store(lengths)
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    expected = padded(model, store, order)
    wanted = gradients(model, expected)
    got = PackedBert(model, torch.float32, fused=fused).first(pack(store, order))
    found = gradients(model, got)
    assert (got - expected).abs().max() < 1e-5
    assert found.keys() == wanted.keys()
    for name in wanted:
        scale = max(1.0, float(wanted[name].abs().max()))
        assert (found[name] - wanted[name]).abs().max() < 1e-5 * scale, name
