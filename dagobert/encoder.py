"""The packed BERT forward: the stock `BertModel`'s own weights, no padding in any layer.

RoBERTa, CamemBERT, XLM-RoBERTa and ELECTRA have BERT's layers; they differ in their embeddings.

`BertModel` run on packed input with its own attention is silently wrong (its bidirectional mask never sees where a sequence
ends), so the layers are walked here. The parameters stay those of the stock modules: they are read where they lie, and
`save_pretrained` of the stock model saves what was trained. On a CPU each layer is `fused.FusedLayer`; elsewhere, and for what
that does not know (dropout of attention weights, other activations), a plain walk that autograd records.

Shapes: T tokens, B sequences, d hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dagobert import dropout as sites
from dagobert.attention import Group, attention_rows, group_sequences
from dagobert.batches import Batch
from dagobert.dropout import Dropout
from dagobert.errors import ParameterError
from dagobert.fused import PARAMETERS, FusedLayer, Plan, Weights, layer_forward

_PROGRAMS = 64  # that a run may compile: numbers of rows and of sequences, last layer or not
_KEEP_BYTES = 2 << 30  # attention probabilities held for the backward pass; above, they are computed again


class PackedBert:
    """Runs a stock `BertModel`, `RobertaModel` or `ElectraModel` on packed batches.

    Args:
        bert: the stock model; its parameters are used in place.
        dtype: what is computed in (parameters stay as they are).
        fused: use the written-out CPU layer where it applies.
        gradient_checkpointing: hold only each layer's input and compute the layer again in the backward pass.
        compiler: backend of `torch.compile` that the plain layer is compiled by in training ("inductor"); None: not at all.
            It compiles anew for each shape, so batches should come in few: `batches.Shapes`.
    """

    def __init__(
        self,
        bert: nn.Module,
        dtype: torch.dtype,
        *,
        fused: bool = True,
        gradient_checkpointing: bool = False,
        compiler: str | Callable[..., Any] | None = None,
    ) -> None:
        self.bert = bert
        self.dtype = dtype
        self.gradient_checkpointing = gradient_checkpointing
        stock: Any = bert
        self.config: Any = stock.config
        self._fused = (
            fused and self.config.hidden_act == "gelu" and dtype in (torch.float32, torch.bfloat16) and not adapted(bert)
        )
        self._embeddings = stock.embeddings
        self._segments = self.config.type_vocab_size > 1
        # RoBERTa counts positions from after its padding id, and leaves tokens of that id out of the count.
        self._padding_id: int | None = getattr(stock.embeddings, "padding_idx", None)
        self._project: nn.Module | None = getattr(stock, "embeddings_project", None)  # ELECTRA's embeddings may be narrower
        self._layers: list[nn.Module] = list(stock.encoder.layer)
        self._parameters = [[layer.get_parameter(name) for name in PARAMETERS] for layer in self._layers] if self._fused else []
        self._compiled = None if compiler is None else _compile(self._plain_layer, compiler)
        self._cast: dict[int, tuple[tuple[int, ...], Weights]] = {}

    def first(self, batch: Batch, dropout: Dropout | None = None) -> Tensor:
        """Final hidden state of each sequence's first token, [CLS]: (B, d)."""
        states = self._run(batch, dropout, first_only=True)
        return states if len(batch.spans) == len(batch.lengths) else states[: len(batch.lengths)]

    def tokens(self, batch: Batch, dropout: Dropout | None = None) -> Tensor:
        """Final hidden states of all tokens: (T, d); rows past the last sequence mean nothing."""
        return self._run(batch, dropout, first_only=False)

    def _run(self, batch: Batch, dropout: Dropout | None, first_only: bool) -> Tensor:
        with self._autocast():
            x = self._embed(batch, dropout)
            attention_p = self.config.attention_probs_dropout_prob if dropout is not None else 0.0
            fused = self._fused and x.device.type == "cpu" and attention_p == 0.0
            groups = group_sequences(batch.spans) if fused else []
            compiled = self._compiled if torch.is_grad_enabled() and attention_p == 0.0 else None
            for number in range(len(self._layers)):
                rows = batch.first_rows if first_only and number == len(self._layers) - 1 else None
                if fused:
                    x = self._fused_layer(x, number, groups, rows, dropout)
                    continue
                run: Callable[..., Tensor] = self._plain_layer if compiled is None else compiled
                arguments: tuple[Any, ...]
                if compiled is None:
                    arguments = (x, self._layers[number], batch, rows, number, dropout, ())
                else:  # a program serves all layers and steps, so what differs in each is drawn outside
                    arguments = (x, self._layers[number], batch, rows, 0, None, self._masks(number, x, rows, dropout))
                again = self.gradient_checkpointing and torch.is_grad_enabled()
                x = checkpoint(run, *arguments, use_reentrant=False) if again else run(*arguments)
        return x

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        device = next(self.bert.parameters()).device.type
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype != torch.float32 and device != "cpu"):
            yield

    def _embed(self, batch: Batch, dropout: Dropout | None) -> Tensor:
        e = self._embeddings
        x = e.word_embeddings(batch.input_ids)
        positions = e.position_embeddings(self._positions(batch))
        if batch.token_types is None or not self._segments:
            x = x + e.token_type_embeddings.weight[0] + positions
        else:
            x = x + e.token_type_embeddings(batch.token_types) + positions
        x = e.LayerNorm(x)
        if dropout is not None:
            x = dropout(x, sites.EMBEDDINGS, self.config.hidden_dropout_prob)
        if self._project is not None:
            x = self._project(x)
        out: Tensor = x.to(self.dtype)
        return out

    def _positions(self, batch: Batch) -> Tensor:
        if self._padding_id is None:
            return batch.positions
        counted = (batch.input_ids != self._padding_id).long()
        upto = counted.cumsum(0)
        before = (upto - counted)[torch.arange(len(upto), device=upto.device) - batch.positions]
        return (upto - before) * counted + self._padding_id

    def _weights(self, number: int) -> Weights:
        """A layer's weights in the compute type, cast again only when an optimizer changed them."""
        parameters = self._parameters[number]
        version = tuple(p._version for p in parameters)
        known = self._cast.get(number)
        if known is None or known[0] != version:
            known = version, Weights.cast(parameters, self.dtype)
            self._cast[number] = known
        return known[1]

    def weights_changed(self) -> None:
        """Forget the cast weights. Call it after an optimizer step: the fused AdamW changes no version."""
        self._cast.clear()

    def _fused_layer(self, x: Tensor, number: int, groups: list[Group], rows: Tensor | None, dropout: Dropout | None) -> Tensor:
        heads = self.config.num_attention_heads
        cells = sum(len(g.lengths) * g.padded * g.padded for g in groups) * heads * len(self._layers)
        plan = Plan(
            layer=number,
            groups=groups,
            heads=heads,
            eps=self.config.layer_norm_eps,
            weights=self._weights(number),
            first_rows=rows,
            dropout=dropout,
            p=self.config.hidden_dropout_prob if dropout is not None else 0.0,
            keep=cells * x.element_size() <= _KEEP_BYTES,
        )
        parameters = self._parameters[number]
        if not torch.is_grad_enabled() or not (x.requires_grad or any(p.requires_grad for p in parameters)):
            return layer_forward(x, plan)
        apply: Callable[..., Any] = FusedLayer.apply
        out = (
            checkpoint(apply, plan, x, *parameters, use_reentrant=False)
            if self.gradient_checkpointing
            else apply(plan, x, *parameters)
        )
        assert isinstance(out, Tensor)
        return out

    def _masks(self, number: int, x: Tensor, rows: Tensor | None, dropout: Dropout | None) -> tuple[Tensor, ...]:
        """Masks of a layer's two dropouts of hidden states; none where nothing is dropped."""
        p = self.config.hidden_dropout_prob
        if dropout is None or p == 0.0:
            return ()
        n, tokens = x.shape[0] if rows is None else len(rows), rows is None
        places = sites.attention_site(number), sites.feed_forward_site(number)
        return tuple(dropout.kept(site, n, x.shape[1], p, x.device, tokens=tokens) for site in places)

    def _plain_layer(
        self,
        x: Tensor,
        layer: Any,
        batch: Batch,
        rows: Tensor | None,
        number: int,
        dropout: Dropout | None,
        masks: tuple[Tensor, ...],
    ) -> Tensor:
        """A layer in torch's own operations. What is dropped is told by `dropout` and the layer's number, or by masks."""
        attention = layer.attention.self
        p = self.config.hidden_dropout_prob
        attention_p = self.config.attention_probs_dropout_prob if dropout is not None else 0.0

        def drop(value: Tensor, which: int) -> Tensor:
            if masks:
                return value * (masks[which].to(value.dtype) * sites.kept_scale(p))
            if dropout is None:
                return value
            site = sites.feed_forward_site(number) if which else sites.attention_site(number)
            return dropout(value, site, p, tokens=rows is None)

        with torch.autocast(x.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            residual = x if rows is None else x[rows]
            query, key, value = attention.query(residual), attention.key(x), attention.value(x)
            heads, first_only = self.config.num_attention_heads, rows is not None
            if dropout is not None and attention_p > 0.0:
                site = sites.weights_site(number)
                context = _dropped_attention(query, key, value, batch.spans, heads, dropout, site, attention_p, first_only)
            else:
                context = attention_rows(
                    query, key, value, batch.spans, batch.longest, batch.cu_seqlens, heads, 0.0, first_only=first_only
                )
            a = drop(layer.attention.output.dense(context), 0)
            y = _norm(layer.attention.output.LayerNorm, residual + a)
            g = layer.intermediate.intermediate_act_fn(layer.intermediate.dense(y))
            f = drop(layer.output.dense(g), 1)
            return _norm(layer.output.LayerNorm, y + f)


def _compile(layer: Callable[..., Tensor], backend: str | Callable[..., Any]) -> Callable[..., Tensor]:
    """One program for all layers of a shape: they differ in their weights alone, which are its inputs."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _PROGRAMS)
    compiled: Callable[..., Tensor] = torch.compile(layer, backend=backend, dynamic=False)
    return compiled


def _norm(module: nn.Module, x: Tensor) -> Tensor:
    """LayerNorm; on a CPU in fp32, because its kernel adds up the parameters' gradients in the type of x."""
    out: Tensor = module(x.float()).to(x.dtype) if x.device.type == "cpu" else module(x)
    return out


def _dropped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Sequence[int],
    heads: int,
    dropout: Dropout,
    site: int,
    p: float,
    first_only: bool,
) -> Tensor:
    """`attention_rows` with dropout of the attention weights, keyed to sequence, query, head and key."""
    size = query.shape[1] // heads
    out: list[Tensor] = []
    at = 0
    with torch.autocast(query.device.type, enabled=False):
        for i, length in enumerate(lengths):
            q = query[i : i + 1] if first_only else query[at : at + length]
            k, v = key[at : at + length], value[at : at + length]
            q, k, v = (x.float().view(1, -1, heads, size).transpose(1, 2) for x in (q, k, v))
            weights = torch.softmax(q @ k.transpose(2, 3) * size**-0.5, -1)
            weights = dropout.by_sequence(weights, site, p, sequences=1, before=i)
            out.append((weights @ v).transpose(1, 2).reshape(-1, heads * size))
            at += length
        rows = torch.cat(out).to(query.dtype)
    return nn.functional.pad(rows, (0, 0, 0, query.shape[0] - rows.shape[0]))


def adapted(model: nn.Module) -> bool:
    """Whether adapters (LoRA) stand between the stock model and its weights."""
    return any("lora_" in name for name, _ in model.named_parameters())


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices in hardware: Ampere or later, AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in checks)


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type that `train.precision` means on this device."""
    if precision == "auto":
        return torch.bfloat16 if native_bf16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def choose_device(name: str) -> torch.device:
    """The device that `train.device` means here.

    Raises:
        ParameterError: a GPU is asked for, and torch finds none.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ParameterError(
            f"the device is to be cuda, but torch {torch.__version__} finds no GPU here. Set train.device (of predict: "
            f"--device) to auto or cpu, or install a driver and a torch that is built for it."
        )
    return torch.device("cuda" if name != "cpu" and found else "cpu")
