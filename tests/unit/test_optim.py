from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    get_scheduler,
)

from dagobert import optim
from dagobert.errors import ParameterError
from dagobert.heads import classification
from tests.unit.training_examples import LABELS


@pytest.fixture
def model(tiny_bert: Path) -> nn.Module:
    return classification.load(tiny_bert, LABELS)


@pytest.mark.parametrize("name", ["linear", "cosine", "constant", "constant_with_warmup"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_schedules_are_those_of_transformers(name: str, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler: Any = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=20)
    for step in range(20):
        assert optim.schedule(name, step, warmup, 20) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_warmup_is_a_number_of_steps_or_a_share() -> None:
    assert optim.warmup_count(0.1, 95) == 10
    assert optim.warmup_count(0, 95) == 0
    assert optim.warmup_count(7, 95) == 7


def test_biases_and_layernorm_do_not_decay(model: nn.Module) -> None:
    groups = optim.parameter_groups(model, 0.01)
    assert {group["weight_decay"] for group in groups} == {0.0, 0.01}
    for group in groups:
        for name in group["names"]:
            assert (group["weight_decay"] == 0.0) == (name.endswith("bias") or "LayerNorm" in name)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_layer_wise_decay_slows_the_lower_layers(model: nn.Module) -> None:
    groups = optim.parameter_groups(model, 0.0, 0.5)
    scale = {name: group["scale"] for group in groups for name in group["names"]}
    # 2 layers: head and pooler 1, top layer 1/2, bottom layer 1/4, embeddings 1/8
    assert scale["classifier.weight"] == scale["bert.pooler.dense.weight"] == 1.0
    assert scale["bert.encoder.layer.1.output.dense.weight"] == 0.5
    assert scale["bert.encoder.layer.0.output.dense.bias"] == 0.25
    assert scale["bert.embeddings.word_embeddings.weight"] == 0.125
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    optim.set_learning_rate(optimizer, 0.2)
    assert {group["lr"] for group in optimizer.param_groups} == {0.2, 0.1, 0.05, 0.025}


@pytest.mark.parametrize(
    ("what", "trained"),
    [
        ("none", {"embeddings", "layer.0", "layer.1", "pooler", "classifier"}),
        ("embeddings", {"layer.0", "layer.1", "pooler", "classifier"}),
        (1, {"layer.1", "pooler", "classifier"}),
        ("encoder", {"pooler", "classifier"}),
    ],
)
def test_freezing(model: nn.Module, what: str | int, trained: set[str]) -> None:
    optim.freeze(model, what)
    parts = ("embeddings", "layer.0", "layer.1", "pooler", "classifier")
    assert {part for part in parts for name, p in model.named_parameters() if part in name and p.requires_grad} == trained


@pytest.mark.parametrize("n", [-1, 3, 99])
def test_layers_that_the_model_does_not_have(model: nn.Module, n: int) -> None:
    for parameter, function in (
        ("freeze", lambda: optim.freeze(model, n)),
        ("reinit_layers", lambda: optim.reinitialize(model, n, 0)),
    ):
        with pytest.raises(
            ParameterError, match=rf"train\.{parameter} is {n}, but this bert model has 2 layers.* Set it to 0 to 2"
        ):
            function()
    assert all(p.requires_grad for p in model.parameters())


def test_all_layers_may_be_frozen_or_drawn_anew(model: nn.Module) -> None:
    optim.reinitialize(model, 2, seed=0)
    optim.freeze(model, 2)
    assert not any(p.requires_grad for name, p in model.named_parameters() if "layer." in name)


def test_an_encoder_whose_layers_share_their_weights_cannot_be_frozen_by_layers() -> None:
    settings = {"embedding_size": 16, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 90}
    albert = AlbertForSequenceClassification(AlbertConfig(**settings))
    with pytest.raises(
        ParameterError, match=r"train\.freeze is encoder, but this albert model has 0 layers that can be told apart"
    ):
        optim.freeze(albert, "encoder")
    optim.freeze(albert, "embeddings")


def test_what_widens_narrow_embeddings_belongs_to_them() -> None:
    settings = {"embedding_size": 16, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 90}
    electra = ElectraForSequenceClassification(ElectraConfig(num_hidden_layers=2, **settings))
    assert optim.layer_depth("electra.embeddings_project.weight", 2) == 3
    optim.freeze(electra, "encoder")
    assert {name for name, p in electra.named_parameters() if p.requires_grad} == {
        f"classifier.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")
    }


def test_reinitialised_layers_are_new_and_the_others_as_they_were(model: nn.Module, tiny_bert: Path) -> None:
    before = classification.load(tiny_bert, LABELS).state_dict()
    optim.reinitialize(model, 1, seed=3)
    for name, p in model.state_dict().items():
        if "layer.1." in name and name.endswith("weight") and "LayerNorm" not in name:
            assert not torch.equal(p, before[name])
            assert 0.015 < float(p.std()) < 0.025  # initializer_range is 0.02
        elif "layer.1." not in name and "classifier" not in name:
            assert torch.equal(p, before[name]), name


def test_clipping_is_that_of_torch() -> None:
    one, other = [torch.nn.Parameter(torch.zeros(5)) for _ in range(3)], [torch.nn.Parameter(torch.zeros(5)) for _ in range(3)]
    for scale in (0.01, 10.0):
        for a, b in zip(one, other, strict=True):
            a.grad = torch.randn(5) * scale
            b.grad = a.grad.clone()
        norm = optim.gradient_norm(one)
        optim.clip(one, norm, 1.0)
        expected = torch.nn.utils.clip_grad_norm_(other, 1.0)
        assert torch.allclose(norm, expected)
        assert all(
            torch.allclose(a.grad, b.grad) for a, b in zip(one, other, strict=True) if a.grad is not None and b.grad is not None
        )
