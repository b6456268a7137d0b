"""What is trained, how fast, and the optimizer: AdamW without decay on biases and LayerNorm.

Learning rates are a pure function of the step, so there is no scheduler whose state could be lost. The schedules are those of
`transformers.get_scheduler` under the same names.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dagobert.errors import ParameterError


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The transformer layers of an encoder, bottom first."""
    stock: Any = model
    base = stock.base_model
    for holder in (getattr(base, "encoder", None), getattr(base, "transformer", None), base):
        for name in ("layer", "layers"):
            found = getattr(holder, name, None)
            if isinstance(found, nn.ModuleList):
                return list(found)
    return []


def embeddings_of(model: nn.Module) -> list[nn.Module]:
    """The embeddings of an encoder, and what makes them as wide as its layers where they are narrower (ELECTRA)."""
    stock: Any = model
    project = getattr(stock.base_model, "embeddings_project", None)
    return [stock.base_model.embeddings, *([] if project is None else [project])]


def freeze(model: nn.Module, what: str | int) -> None:
    """Keep parameters as they are: "none", "embeddings", "encoder" (all but pooler and head) or n: embeddings and n layers.

    Raises:
        ParameterError: the model has fewer layers.
    """
    frozen: list[nn.Module] = []
    if what != "none":
        frozen += embeddings_of(model)
    layers = layers_of(model)
    if isinstance(what, int) or what == "encoder":
        _check_layers(model, "freeze", what, what if isinstance(what, int) else 1, len(layers))
    if what == "encoder":
        frozen += layers
    elif isinstance(what, int):
        frozen += layers[:what]
    for module in frozen:
        module.requires_grad_(False)


def reinitialize(model: nn.Module, n: int, seed: int) -> None:
    """Draw the top n layers anew, as before pre-training (Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning").

    Raises:
        ParameterError: the model has fewer layers.
    """
    _check_layers(model, "reinit_layers", n, n, len(layers_of(model)))
    if n == 0:
        return
    stock: Any = model
    generator = torch.Generator().manual_seed(seed)
    deviation = float(getattr(stock.config, "initializer_range", 0.02))
    for layer in layers_of(model)[-n:]:
        for name, parameter in layer.named_parameters():
            with torch.no_grad():
                if is_decayed(name):
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
                elif name.endswith("bias"):
                    parameter.zero_()
                else:
                    parameter.fill_(1.0)


def _check_layers(model: nn.Module, parameter: str, value: str | int, asked: int, layers: int) -> None:
    if not 0 <= asked <= layers:
        stock: Any = model
        raise ParameterError(
            f"train.{parameter} is {value}, but this {stock.config.model_type} model has {layers} layers "
            f"that can be told apart. Set it to 0 to {layers}{', none or embeddings' * (parameter == 'freeze')}."
        )


def is_decayed(name: str) -> bool:
    """Whether weight decay applies: not to biases and normalisation layers."""
    lower = name.lower()
    return not (lower.endswith("bias") or "norm" in lower)


def layer_depth(name: str, n_layers: int) -> int:
    """How far below the head a parameter is: 0 head, 1 top layer, …, n_layers + 1 embeddings."""
    parts = name.split(".")
    for before, part in itertools.pairwise(parts):
        if before in ("layer", "layers") and part.isdigit():
            return n_layers - int(part)
    return n_layers + 1 if {"embeddings", "embeddings_project"} & set(parts) else 0


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Groups for AdamW, with `scale`: the share of the learning rate that a group gets, layer_decay ** depth."""
    n_layers = len(layers_of(model))
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = layer_decay ** layer_depth(name, n_layers)
        decayed = is_decayed(name)
        group = groups.setdefault(
            (scale, decayed), {"params": [], "names": [], "scale": scale, "weight_decay": weight_decay if decayed else 0.0}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def warmup_count(warmup_steps: float, total: int) -> int:
    """Steps of warm-up: a number of 1 or more, or below 1 a share of all steps (rounded up)."""
    return int(warmup_steps) if warmup_steps >= 1 else math.ceil(warmup_steps * total)


def schedule(kind: str, step: int, warmup: int, total: int) -> float:
    """Share of the peak learning rate at a 0-based step."""
    if kind == "constant":
        return 1.0
    if step < warmup:
        return step / max(1, warmup)
    if kind == "constant_with_warmup":
        return 1.0
    progress = (step - warmup) / max(1, total - warmup)
    if kind == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
    return max(0.0, 1.0 - progress)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """L2 norm of all gradients together, a scalar."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(grads)
    norm: Tensor = torch.linalg.vector_norm(torch.stack([n.float() for n in norms]))
    return norm


def clip(parameters: Sequence[Tensor], norm: Tensor, most: float) -> None:
    """Scale all gradients so that their norm is at most `most` (as `torch.nn.utils.clip_grad_norm_` does)."""
    factor = torch.clamp(most / (norm + 1e-6), max=1.0)
    if factor.is_cuda or float(factor) < 1.0:  # to look at the factor would mean to wait for the GPU
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], factor)
