"""One BERT layer on a CPU, forward and backward written out: an exact rewrite of the plain layer.

Autograd's own record of a layer spends much of a step on copies, casts and dropout masks; here each intermediate is made once,
in the compute type, and the backward pass is twelve matrix products with little between them. Weights stay in fp32 and are cast
once an optimizer step. Where only [CLS] rows are wanted (the last layer), queries, output projection and feed-forward are
computed for those alone.

Shapes: T tokens (rows past the last sequence are padding with zero gradient), B sequences, d hidden, f intermediate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from dagobert.attention import Group, attention_backward, from_heads, probabilities, to_heads
from dagobert.dropout import Dropout, attention_site, feed_forward_site, kept_scale

_CHUNK = 1024  # rows of a column sum that stay in the cache: 0.7 ms instead of 2.5 for 4096×1536 on one Zen 4 core


@dataclass(frozen=True)
class Weights:
    """A layer's weights in the compute type, query, key and value joined; LayerNorm's stay fp32."""

    qkv: Tensor
    b_qkv: Tensor
    out: Tensor
    b_out: Tensor
    norm1: Tensor
    b_norm1: Tensor
    up: Tensor
    b_up: Tensor
    down: Tensor
    b_down: Tensor
    norm2: Tensor
    b_norm2: Tensor

    @classmethod
    def cast(cls, parameters: Sequence[Tensor], dtype: torch.dtype) -> Weights:
        """From the 16 parameters of a stock layer, in the order of `PARAMETERS`."""
        q, bq, k, bk, v, bv, o, bo, n1, bn1, u, bu, w, bw, n2, bn2 = (p.detach() for p in parameters)
        qkv, b_qkv = torch.cat([q, k, v]).to(dtype), torch.cat([bq, bk, bv]).to(dtype)
        return cls(
            qkv, b_qkv, o.to(dtype), bo.to(dtype), n1, bn1, u.to(dtype), bu.to(dtype), w.to(dtype), bw.to(dtype), n2, bn2
        )


PARAMETERS = (
    "attention.self.query.weight",
    "attention.self.query.bias",
    "attention.self.key.weight",
    "attention.self.key.bias",
    "attention.self.value.weight",
    "attention.self.value.bias",
    "attention.output.dense.weight",
    "attention.output.dense.bias",
    "attention.output.LayerNorm.weight",
    "attention.output.LayerNorm.bias",
    "intermediate.dense.weight",
    "intermediate.dense.bias",
    "output.dense.weight",
    "output.dense.bias",
    "output.LayerNorm.weight",
    "output.LayerNorm.bias",
)


@dataclass(frozen=True)
class Plan:
    """What a layer needs to know besides numbers.

    Attributes:
        first_rows: where each sequence begins, shape (B,), if only [CLS] rows are wanted; None: all rows.
        keep: hold the attention probabilities for the backward pass (else they are computed again).
    """

    layer: int
    groups: Sequence[Group]
    heads: int
    eps: float
    weights: Weights
    first_rows: Tensor | None
    dropout: Dropout | None
    p: float
    keep: bool


@dataclass
class _Saved:
    """Intermediates of one forward pass."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    heads: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)  # query, key, value of each group
    probabilities: list[Tensor] = field(default_factory=list)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x·weightᵀ + bias. In bf16 through oneDNN's own bias: `F.linear` first fills the output with it (10 % of the product)."""
    if x.dtype == torch.bfloat16 and _POINTWISE is not None:
        out: Tensor = _POINTWISE(x, weight, bias, "none", [], "none")
        return out
    return F.linear(x, weight, bias)


def _pointwise() -> Any:
    try:
        operator = torch.ops.mkldnn._linear_pointwise.default
        operator(torch.zeros(2, 4).bfloat16(), torch.zeros(3, 4).bfloat16(), torch.zeros(3).bfloat16(), "none", [], "none")
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    return operator


_POINTWISE = _pointwise()


def column_sums(x: Tensor) -> Tensor:
    """Sum over rows, fp32, shape (columns,)."""
    if x.dtype == torch.float32:
        return x.sum(0)
    pieces = [piece.new_ones(1, len(piece)).mm(piece).float() for piece in torch.split(x, _CHUNK)]
    return torch.cat(pieces).sum(0)


def norm_backward(
    grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of LayerNorm's input, weight and bias (None where not wanted).

    Torch's own kernel adds up rows in bf16 where x is bf16: over 4,096 rows the weight's gradient was off by 43 % and the
    bias's by 69 %. Here they are added in fp32.
    """
    native, shape = torch.ops.aten.native_layer_norm_backward, [x.shape[1]]
    if x.dtype == torch.float32:
        out: tuple[Tensor, Tensor | None, Tensor | None] = native(grad, x, shape, mean, rstd, weight, bias, [True, *wanted])
        return out
    dx = native(grad, x, shape, mean, rstd, weight, bias, [True, False, False])[0]
    scale = rstd.to(x.dtype)
    d_weight = column_sums(torch.addcmul(-mean.to(x.dtype) * scale, x, scale).mul_(grad)) if wanted[0] else None
    return dx, d_weight, column_sums(grad) if wanted[1] else None


def _dropped(residual: Tensor, x: Tensor, plan: Plan, site: int, saved: _Saved | None, name: str) -> Tensor:
    """residual + dropout(x)."""
    if plan.dropout is None or plan.p == 0.0:
        return residual + x
    mask = plan.dropout.mask(site, x.shape[0], x.shape[1], plan.p, tokens=plan.first_rows is None).to(x.dtype)
    if saved is not None:
        saved.tensors[name] = mask
    return torch.addcmul(residual, x, mask, value=kept_scale(plan.p))


def _undropped(grad: Tensor, plan: Plan, saved: _Saved, name: str) -> Tensor:
    mask = saved.tensors.get(name)
    return grad if mask is None else torch.addcmul(grad.new_zeros(()), grad, mask, value=kept_scale(plan.p))


def _attend(x: Tensor, plan: Plan, saved: _Saved | None) -> Tensor:
    """Self-attention before its output projection: (T, d), or (B, d) for [CLS] rows alone."""
    w, d = plan.weights, x.shape[1]
    size = d // plan.heads
    if plan.first_rows is None:
        qkv = linear(x, w.qkv, w.b_qkv)
        context = x.new_zeros(x.shape)
    else:
        qkv = linear(x, w.qkv[d:], w.b_qkv[d:])
        first = linear(x[plan.first_rows], w.qkv[:d], w.b_qkv[:d])
        context = x.new_empty(first.shape)
    for group in plan.groups:
        n = len(group.lengths)
        rows = qkv[group.start : group.start + group.rows]
        if plan.first_rows is None:
            q, k, v = to_heads(rows, group, 3, plan.heads)
        else:
            k, v = to_heads(rows, group, 2, plan.heads)
            q = first[group.first : group.first + n].view(n * plan.heads, 1, size)
        p = probabilities(q, k, group, size**-0.5)
        values = torch.bmm(p, v)
        if plan.first_rows is None:
            from_heads([values], group, context[group.start : group.start + group.rows])
        else:
            context[group.first : group.first + n] = values.view(n, d)
        if saved is not None:
            saved.heads.append((q, k, v))
            if plan.keep:
                saved.probabilities.append(p)
    return context


def _attend_backward(grad: Tensor, x: Tensor, plan: Plan, saved: _Saved) -> tuple[Tensor, Tensor | None]:
    """Gradients of the joined projections: (T, 3d), or for [CLS] rows (T, 2d) of key and value and (B, d) of the queries."""
    d = x.shape[1]
    size = d // plan.heads
    d_qkv = x.new_zeros(x.shape[0], 3 * d if plan.first_rows is None else 2 * d)
    d_first = None if plan.first_rows is None else torch.empty_like(grad)
    for i, group in enumerate(plan.groups):
        n = len(group.lengths)
        q, k, v = saved.heads[i]
        p = saved.probabilities[i] if plan.keep else probabilities(q, k, group, size**-0.5)
        if plan.first_rows is None:
            (g,) = to_heads(grad[group.start : group.start + group.rows], group, 1, plan.heads)
        else:
            g = grad[group.first : group.first + n].view(n * plan.heads, 1, size)
        dq, dk, dv = attention_backward(g, q, k, v, p, size**-0.5)
        into = d_qkv[group.start : group.start + group.rows]
        if d_first is None:
            from_heads([dq, dk, dv], group, into)
        else:
            from_heads([dk, dv], group, into)
            d_first[group.first : group.first + n] = dq.view(n, d)
    return d_qkv, d_first


def layer_forward(x: Tensor, plan: Plan, saved: _Saved | None = None) -> Tensor:
    """The layer: (T, d) to (T, d), or to (B, d) where only [CLS] rows are wanted."""
    w, d = plan.weights, x.shape[1]
    context = _attend(x, plan, saved)
    residual = x if plan.first_rows is None else x[plan.first_rows]
    h1 = _dropped(residual, linear(context, w.out, w.b_out), plan, attention_site(plan.layer), saved, "mask1")
    y, mean1, rstd1 = torch.native_layer_norm(h1, [d], w.norm1, w.b_norm1, plan.eps)
    u = linear(y, w.up, w.b_up)
    g = F.gelu(u)
    h2 = _dropped(y, linear(g, w.down, w.b_down), plan, feed_forward_site(plan.layer), saved, "mask2")
    out, mean2, rstd2 = torch.native_layer_norm(h2, [d], w.norm2, w.b_norm2, plan.eps)
    if saved is not None:
        saved.tensors |= {"x": x, "context": context, "h1": h1, "mean1": mean1, "rstd1": rstd1, "y": y}
        saved.tensors |= {"u": u, "g": g, "h2": h2, "mean2": mean2, "rstd2": rstd2}
    return out


def layer_backward(grad: Tensor, plan: Plan, saved: _Saved, wanted: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients of the input and of the 16 parameters (None where not wanted), these in fp32."""
    w, s = plan.weights, saved.tensors
    d = grad.shape[1]
    grads: list[Tensor | None] = [None] * len(PARAMETERS)

    def keep(index: int, make: Any) -> None:
        if wanted[index]:
            grads[index] = make()

    dh2, grads[14], grads[15] = norm_backward(grad, s["h2"], s["mean2"], s["rstd2"], w.norm2, w.b_norm2, wanted[14:])
    df = _undropped(dh2, plan, saved, "mask2")
    keep(12, lambda: df.t().mm(s["g"]).float())
    keep(13, lambda: column_sums(df))
    du = torch.ops.aten.gelu_backward(df.mm(w.down), s["u"])
    keep(10, lambda: du.t().mm(s["y"]).float())
    keep(11, lambda: column_sums(du))
    dy = du.mm(w.up).add_(dh2)
    dh1, grads[8], grads[9] = norm_backward(dy, s["h1"], s["mean1"], s["rstd1"], w.norm1, w.b_norm1, wanted[8:10])
    da = _undropped(dh1, plan, saved, "mask1")
    keep(6, lambda: da.t().mm(s["context"]).float())
    keep(7, lambda: column_sums(da))
    d_qkv, d_first = _attend_backward(da.mm(w.out), s["x"], plan, saved)
    if d_first is None:
        dx = d_qkv.mm(w.qkv).add_(dh1)
        _projection_gradients(grads, wanted, [(d_qkv, s["x"], (0, 2, 4))], d)
    else:
        assert plan.first_rows is not None
        dx = d_qkv.mm(w.qkv[d:])
        dx.index_add_(0, plan.first_rows, d_first.mm(w.qkv[:d]).add_(dh1))
        _projection_gradients(grads, wanted, [(d_first, s["x"][plan.first_rows], (0,)), (d_qkv, s["x"], (2, 4))], d)
    return dx, grads


def _projection_gradients(
    grads: list[Tensor | None], wanted: Sequence[bool], products: list[tuple[Tensor, Tensor, tuple[int, ...]]], d: int
) -> None:
    for grad, x, indices in products:
        if any(wanted[i] for i in indices):
            for i, piece in zip(indices, torch.split(grad.t().mm(x).float(), d), strict=True):
                grads[i] = piece if wanted[i] else None
        if any(wanted[i + 1] for i in indices):
            for i, piece in zip(indices, torch.split(column_sums(grad), d), strict=True):
                grads[i + 1] = piece if wanted[i + 1] else None


class FusedLayer(torch.autograd.Function):
    """`layer_forward` with `layer_backward`, as autograd sees it. Called as `FusedLayer.apply(plan, x, *parameters)`."""

    @staticmethod
    def forward(ctx: FunctionCtx, plan: Plan, x: Tensor, *parameters: Tensor) -> Tensor:
        """Run the layer and keep what the backward pass reads."""
        saved = _Saved()
        out = layer_forward(x, plan, saved)
        ctx.plan, ctx.saved = plan, saved  # type: ignore[attr-defined]
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and the parameters, once."""
        plan, saved = ctx.plan, ctx.saved
        assert saved is not None, "a packed layer can be differentiated once"
        dx, of_parameters = layer_backward(grads[0].contiguous(), plan, saved, ctx.needs_input_grad[2:])
        ctx.saved = ctx.plan = None
        return None, dx if ctx.needs_input_grad[1] else None, *of_parameters
