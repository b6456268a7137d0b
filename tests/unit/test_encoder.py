"""The packed forward against transformers' own padded one: logits and every gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from dagobert import attention
from dagobert.batches import Shapes, pack
from dagobert.dropout import Dropout
from dagobert.encoder import PackedBert, choose_device, native_bf16
from dagobert.errors import ParameterError
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


@pytest.mark.parametrize("fused", [True, False])
def test_packing_never_leaks_across_boundaries(fused: bool) -> None:
    """Other neighbours leave a sequence's state as it was, bit for bit where the shapes are the same."""
    model, lengths = small_bert(), [30, 17, 9]
    one, other = make_store(lengths, seed=1), make_store(lengths, seed=2)
    ids = np.concatenate([other.sequence(0), one.sequence(1), other.sequence(2)])
    mixed = TokenStore.from_arrays(ids, np.concatenate([[0], np.cumsum(lengths)]))
    run = PackedBert(model, torch.float32, fused=fused)
    with torch.no_grad():
        before, after = run.first(pack(one, [0, 1, 2])), run.first(pack(mixed, [0, 1, 2]))
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0], after[0])


@pytest.mark.parametrize("fused", [True, False])
def test_states_of_all_tokens_are_those_of_transformers(fused: bool) -> None:
    model, store = small_bert(), make_store([31, 7])
    with torch.no_grad():
        states = PackedBert(model, torch.float32, fused=fused).tokens(pack(store, [0, 1]))
        for i, rows in ((0, slice(0, 31)), (1, slice(31, 38))):
            ids = torch.from_numpy(store.sequence(i).astype(np.int64))[None]
            assert (states[rows] - model(input_ids=ids).last_hidden_state[0]).abs().max() < 1e-5


def test_segments_of_pairs_reach_the_embeddings() -> None:
    model = small_bert()
    store = make_store([20, 12])
    paired = TokenStore.from_arrays(
        np.concatenate([store.sequence(0), store.sequence(1)]), [0, 20, 32], second=np.array([8, 12])
    )
    with torch.no_grad():
        found = PackedBert(model, torch.float32).first(pack(paired, [0, 1]))
        ids = torch.from_numpy(store.sequence(0).astype(np.int64))[None]
        types = torch.tensor([[0] * 8 + [1] * 12])
        assert (found[0] - model(input_ids=ids, token_type_ids=types).last_hidden_state[0, 0]).abs().max() < 1e-5


@pytest.mark.parametrize("changes", [{"fused": False}, {"gradient_checkpointing": True}, {"keep": 0}])
def test_the_ways_to_compute_a_layer_agree_with_dropout_on(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are keyed to the place, so the written-out layer, the plain walk and recomputation drop the same elements."""
    model, store = small_bert(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0), make_store(LENGTHS)
    order, dropout = list(range(len(LENGTHS))), Dropout(seed=5, step=3)
    expected = PackedBert(model, torch.float32).first(pack(store, order), dropout)
    wanted = gradients(model, expected)
    if "keep" in changes:
        monkeypatch.setattr("dagobert.encoder._KEEP_BYTES", changes["keep"])
        changes = {}
    got = PackedBert(model, torch.float32, **changes).first(pack(store, order), dropout)
    found = gradients(model, got)
    assert (got - expected).abs().max() < 1e-5
    assert all((found[name] - wanted[name]).abs().max() < 1e-4 for name in wanted)
    assert not torch.allclose(got, PackedBert(model, torch.float32).first(pack(store, order), Dropout(5, 4)), atol=1e-3)


def test_frozen_parameters_get_no_gradient_and_the_others_the_same() -> None:
    model, store = small_bert(), make_store([20, 5])
    wanted = gradients(model, PackedBert(model, torch.float32).first(pack(store, [0, 1])))
    for name, p in model.named_parameters():
        p.requires_grad_("layer.2" in name or name.endswith("layer.1.attention.self.key.weight"))
    found = gradients(model, PackedBert(model, torch.float32).first(pack(store, [0, 1])))
    assert set(found) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(torch.equal(found[name], wanted[name]) for name in found)


def test_attention_dropout_takes_the_plain_walk_and_drops() -> None:
    model, store = small_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5), make_store([20, 5])
    run, batch = PackedBert(model, torch.float32), pack(store, [0, 1])
    one, again, other = (run.first(batch, Dropout(1, step)) for step in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("fused", [True, False])
def test_fixed_shapes_change_neither_states_nor_gradients(fused: bool) -> None:
    model, store = small_bert(), make_store(LENGTHS)
    order, run = list(range(len(LENGTHS))), PackedBert(model, torch.float32, fused=fused)
    expected = run.first(pack(store, order))
    wanted = gradients(model, expected)
    got = run.first(pack(store, order, shapes=Shapes.within(512, 64)))
    found = gradients(model, got)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < 1e-6
    assert all((found[name] - wanted[name]).abs().max() < 1e-5 for name in wanted)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler's own
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_layers_agree_and_one_program_serves_all_layers_of_a_shape(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the GPU's attention, which the compiler takes as one call."""
    from torch._dynamo.backends.registry import lookup_backend

    @torch.compiler.disable
    def one_by_one(query: Tensor, key: Tensor, value: Tensor, longest: int, cu: Tensor, heads: int, first: bool) -> Tensor:
        lengths = cu.diff().tolist()
        assert min(lengths) >= 1
        assert max(lengths) <= longest
        return attention.attention_rows(query, key, value, lengths, longest, cu, heads, 0.0, first)

    monkeypatch.setattr(attention, "_varlen", one_by_one)
    monkeypatch.setattr(attention, "_varlen_works", lambda *_: torch.compiler.is_compiling())
    programs: list[Any] = []

    def counted(graph: Any, inputs: Any) -> Any:
        programs.append(graph)
        return lookup_backend(backend)(graph, inputs)

    model, stores = small_bert(num_hidden_layers=5), [make_store(LENGTHS, seed=1), make_store(LENGTHS[::-1], seed=2)]
    order, shapes = list(range(len(LENGTHS))), Shapes.within(512, 64)
    compiled, plain = (PackedBert(model, torch.float32, fused=False, compiler=c) for c in (counted, None))
    torch._dynamo.reset()
    made: list[int] = []
    for store in stores:
        expected = plain.first(pack(store, order))
        wanted = gradients(model, expected)
        got = compiled.first(pack(store, order, shapes=shapes))
        found = gradients(model, got)
        assert (got - expected).abs().max() < 1e-5
        assert all((found[name] - wanted[name]).abs().max() < 1e-5 for name in wanted)
        made.append(len(programs))
    assert made[0] == made[1]  # other lengths, the same shapes
    assert 1 <= made[0] <= 4  # inner layers and the last one, each cut in two by the stand-in


@pytest.mark.skipif(not native_bf16(torch.device("cpu")), reason="no bf16 on this processor")
@pytest.mark.parametrize("fused", [True, False])
def test_bf16_is_near_fp32(fused: bool) -> None:
    model, store = small_bert(), make_store(LENGTHS)
    order = list(range(len(LENGTHS)))
    expected = PackedBert(model, torch.float32).first(pack(store, order))
    got = PackedBert(model, torch.bfloat16, fused=fused).first(pack(store, order))
    wanted, found = gradients(model, expected), gradients(model, got)
    assert (got.float() - expected).norm() < 0.02 * expected.norm()
    total = torch.cat([g.flatten() for g in wanted.values()])
    assert (torch.cat([g.flatten() for g in found.values()]) - total).norm() < 0.03 * total.norm()


@pytest.mark.skipif(not native_bf16(torch.device("cpu")), reason="no bf16 on this processor")
@pytest.mark.parametrize("fused", [True, False])
def test_every_gradient_in_bf16_is_near_fp32_over_many_rows(fused: bool) -> None:
    """Sums over rows are where bf16 loses most: the kernel of torch's LayerNorm adds in bf16, and was off by more than 10 %."""
    model, store = small_bert(), make_store([64] * 32)
    order = list(range(32))
    wanted = gradients(model, PackedBert(model, torch.float32).first(pack(store, order)).sum(0, keepdim=True))
    found = gradients(model, PackedBert(model, torch.bfloat16, fused=fused).first(pack(store, order)).sum(0, keepdim=True))
    least = 0.01 * float(torch.cat([g.flatten() for g in wanted.values()]).norm())
    off = {name: float((found[name] - g).norm()) / max(float(g.norm()), least) for name, g in wanted.items()}
    assert max(off.values()) < 0.04, sorted(off.items(), key=lambda item: -item[1])[:5]


def test_weights_written_by_an_optimizer_are_seen() -> None:
    """The fused AdamW writes without autograd's notice (no version changes), so it must be told."""
    model, store = small_bert(), make_store([9])
    run = PackedBert(model, torch.float32)
    before = run.first(pack(store, [0]))
    before.sum().backward()
    torch.optim.AdamW(model.parameters(), lr=0.1, fused=True).step()
    run.weights_changed()
    after = run.first(pack(store, [0]))
    assert (after - padded(model, store, [0])).abs().max() < 1e-5
    assert not torch.allclose(before, after)


@pytest.mark.parametrize(("gpu", "name", "expected"), [
    (True, "auto", "cuda"), (True, "cuda", "cuda"), (True, "cpu", "cpu"), (False, "auto", "cpu"), (False, "cpu", "cpu"),
])  # fmt: skip
def test_the_device_that_is_chosen(gpu: bool, name: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert choose_device(name).type == expected


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ParameterError, match=r"to be cuda, but torch .* finds no GPU here\. Set train\.device .* to auto or cpu"
    ):
        choose_device("cuda")
