"""Low-rank adapters by `peft` (Hu et al. 2021, "LoRA"): the encoder stays, small matrices beside its projections learn.

They are merged into the weights before the model is published, so what is saved is an ordinary model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dagobert.errors import TrainingError


def adapt(model: nn.Module, *, rank: int, alpha: int, seed: int) -> None:
    """Put adapters beside every linear layer of the encoder and freeze the encoder; pooler and head are trained as they are.

    Raises:
        TrainingError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise TrainingError("train.lora_r needs the package peft: pip install 'dagobert[lora]', or set it to null.") from None

    from dagobert.optim import embeddings_of, layers_of

    layers = layers_of(model)
    inside = {id(module) for layer in layers for module in layer.modules()}
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and id(module) in inside]
    torch.manual_seed(seed)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=names), model)
    inside = {id(p) for layer in layers for p in layer.parameters()}
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.requires_grad_(id(parameter) not in inside and name in trained)
    for module in embeddings_of(model):
        module.requires_grad_(False)


def merge(model: nn.Module) -> None:
    """Add the adapters to the weights and remove them."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            adapter: Any = module
            adapter.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, adapter.get_base_layer())
