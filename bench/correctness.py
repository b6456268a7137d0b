"""Packed against stock before anything is timed: logits and every gradient, in fp32 and in the type that is measured.

The reference is always the stock model in fp32. A difference is a norm over a norm; a parameter whose gradient is next to
nothing (the key's bias, to which softmax is blind) is held to a hundredth of the whole gradient instead.

Tolerances. fp32: 1e-5. Below: a value is rounded to the compute type about 16 times a layer, forward and backward; each
rounding is off by at most half a unit in the last place, u (2**-8 for bf16, 2**-11 for fp16), and independent errors add up
as their squares: u·√(16·layers), 3.8 % for bf16 and 6 layers, 5.4 % for 12. What the stock model itself loses in that type,
under autocast, stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import workload
from bench.baselines.padded import Rows, pad
from bench.workload import Workload
from dagobert.batches import pack
from dagobert.heads import classification
from dagobert.heads.classification import Classifier

_ROUNDINGS = 16  # of a layer, forward and backward
_SEQUENCES = 8

Found = tuple[Tensor, dict[str, Tensor]]  # logits (B, C) and the gradient of each parameter


def tolerance(dtype: torch.dtype, layers: int) -> float:
    """Largest relative difference that rounding explains."""
    if dtype == torch.float32:
        return 1e-5
    return torch.finfo(dtype).eps / 2 * math.sqrt(_ROUNDINGS * layers)


def check(name: str, max_length: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Compare in fp32 and in `dtype`.

    Raises:
        SystemExit: a difference is larger than rounding explains.
    """
    work = workload.make(_SEQUENCES, max_length)
    # one label for all: gradients of untrained weights would cancel otherwise, and leave mostly rounding
    work = Workload(work.sequences, np.ones_like(work.labels))
    model: Any = workload.model(name, attention_dropout=0.0)
    model.to(device).eval()
    expected = stock(model, work, device, torch.float32)
    found: dict[str, Any] = {}
    for kind in dict.fromkeys((torch.float32, dtype)):
        limit = tolerance(kind, model.config.num_hidden_layers)
        ours = differences(packed(classification.runner(model, kind), work, device), expected)
        its_own = differences(stock(model, work, device, kind), expected)
        title = str(kind).removeprefix("torch.")
        found[title] = {"tolerance": limit, "packed": ours, "stock": its_own}
        for what in ("logits", "gradients"):
            if not ours[what] <= limit:
                raise SystemExit(
                    f"packed {what} in {title} differ from the stock model's by {ours[what]:.2g} ({ours['worst']} most), "
                    f"more than the {limit:.2g} that rounding explains: nothing was measured"
                )
    return found


def packed(runner: Classifier, work: Workload, device: torch.device) -> Found:
    """What the engine finds."""
    batch = pack(work.store(), np.arange(len(work.sequences)), device)
    return _with_gradients(runner.model, work, lambda: runner.logits(batch))


def stock(model: nn.Module, work: Workload, device: torch.device, dtype: torch.dtype) -> Found:
    """What transformers finds, padded; below fp32 under autocast."""
    run: Any = model
    rows = Rows(work)
    batch = pad([rows[i] for i in range(len(rows))])

    def logits() -> Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            out: Tensor = run(batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device)).logits
        return out

    return _with_gradients(model, work, logits)


def _with_gradients(model: nn.Module, work: Workload, logits: Callable[[], Tensor]) -> Found:
    model.zero_grad()
    out = logits().float()
    torch.autograd.backward(F.cross_entropy(out, torch.from_numpy(work.labels).to(out.device)))
    return out.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def differences(found: Found, expected: Found) -> dict[str, Any]:
    """Relative differences of the logits and of the worst gradient, and the parameter that has it."""
    gradients = expected[1]
    least = 0.01 * math.sqrt(sum(float(g.norm()) ** 2 for g in gradients.values()))
    each = {name: float((found[1][name] - g).norm()) / max(float(g.norm()), least) for name, g in gradients.items()}
    worst = max(each, key=lambda name: each[name])
    logits = float((found[0] - expected[0]).norm() / expected[0].norm())
    return {"logits": logits, "gradients": each[worst], "worst": worst}
