"""Classification of whole sequences, one class a row or several: pooler, dropout and a linear layer on [CLS].

The model is a stock `…ForSequenceClassification`: it is loaded and saved by transformers. BERT and those that have its layers
(RoBERTa, CamemBERT, XLM-RoBERTa, ELECTRA) run packed; the other encoders of the family (DistilBERT, ModernBERT, …) run through
transformers on padded batches of similar length, behind the same interface.

Shapes: B sequences, C classes, d hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dagobert import dropout as sites
from dagobert.batches import Batch, on_device
from dagobert.dropout import Dropout, Through
from dagobert.encoder import PackedBert
from dagobert.errors import ModelError
from dagobert.labels import MULTI, SINGLE, LabelMap
from dagobert.metrics import class_scores, confusion_matrix, log_loss

PACKED = ("bert", "camembert", "electra", "roberta", "xlm-roberta")
_TINY = float(np.finfo(np.float64).tiny)
# Encoders of the BERT family that transformers can run with a sequence classification head.
FAMILY = (
    *PACKED, "albert", "deberta", "deberta-v2", "distilbert", "ernie", "mobilebert", "modernbert", "mpnet", "nomic_bert",
    "roberta-prelayernorm", "squeezebert", "xlm-roberta-xl",
)  # fmt: skip
# What `train.*_dropout` is called in the configurations of the family.
_HIDDEN_DROPOUT = ("hidden_dropout_prob", "dropout", "embedding_dropout", "mlp_dropout")
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout")
_HEAD_DROPOUT = ("classifier_dropout", "seq_classif_dropout", "classifier_dropout_prob")


class Classifier(Protocol):
    """A stock model and the way it is run."""

    model: nn.Module
    dtype: torch.dtype  # what is computed in
    padded: bool  # whether batches are padded: then similar lengths belong together
    compiled: bool  # whether training compiles a program for each shape: then shapes should be few

    def logits(self, batch: Batch, dropout: Dropout | None = None) -> Tensor:
        """Logits (B, C) in fp32; `dropout` is given in training and None otherwise."""

    def weights_changed(self) -> None:
        """Tell that parameters were written."""


class PackedClassifier:
    """`BertForSequenceClassification` and its kin on packed batches."""

    padded = False

    def __init__(
        self,
        model: nn.Module,
        dtype: torch.dtype,
        *,
        fused: bool = True,
        gradient_checkpointing: bool = False,
        compiler: str | Callable[..., Any] | None = None,
    ) -> None:
        self.model = model
        self.dtype = dtype
        self.compiled = compiler is not None
        stock: Any = model
        self.encoder = PackedBert(
            stock.base_model, dtype, fused=fused, gradient_checkpointing=gradient_checkpointing, compiler=compiler
        )
        self._pooler, self._classifier = getattr(stock.base_model, "pooler", None), stock.classifier
        p = stock.config.classifier_dropout
        self._p = stock.config.hidden_dropout_prob if p is None else p

    def logits(self, batch: Batch, dropout: Dropout | None = None) -> Tensor:
        """Logits (B, C) in fp32."""

        def drop(x: Tensor, site: int) -> Tensor:
            return x if dropout is None else dropout(x, site, self._p, tokens=False)

        first, head = self.encoder.first(batch, dropout).float(), self._classifier
        out: Tensor
        if self._pooler is not None:
            out = head(drop(torch.tanh(self._pooler.dense(first)), sites.HEAD))
        else:  # the dense layer belongs to the head, and ELECTRA's has another activation
            activation = getattr(head, "activation", torch.tanh)
            out = head.out_proj(drop(activation(head.dense(drop(first, sites.HEAD_INPUT))), sites.HEAD))
        return out

    def weights_changed(self) -> None:
        """Forget the cast weights."""
        self.encoder.weights_changed()


class PaddedClassifier:
    """Any other encoder through its own forward, on padded batches; its dropouts get masks keyed to the sequence."""

    padded = True
    compiled = False

    def __init__(self, model: nn.Module, dtype: torch.dtype, *, gradient_checkpointing: bool = False) -> None:
        self.model = model
        self.dtype = dtype
        config: Any = model.config
        self._pad = config.pad_token_id or 0
        self._through: Through | None = None
        if gradient_checkpointing:
            stock: Any = model
            enable = getattr(stock, "activation_checkpointing_enable", None) or stock.gradient_checkpointing_enable
            enable({"use_reentrant": False, "context_fn": self._contexts})

    def logits(self, batch: Batch, dropout: Dropout | None = None) -> Tensor:
        """Logits (B, C) in fp32."""
        n, longest = len(batch.lengths), max(batch.lengths)
        device = batch.input_ids.device
        length = torch.tensor(batch.lengths, device=device)
        mask = torch.arange(longest, device=device) < length[:, None]
        ids = torch.full((n, longest), self._pad, device=device)
        total = sum(batch.lengths)
        ids[mask] = batch.input_ids[:total]
        inputs: dict[str, Tensor] = {"input_ids": ids, "attention_mask": mask.long()}
        if batch.token_types is not None and getattr(self.model.config, "type_vocab_size", 1) > 1:
            types = torch.zeros_like(ids)
            types[mask] = batch.token_types[:total]
            inputs["token_type_ids"] = types
        self.model.train(dropout is not None)
        if dropout is not None:
            dropout.seed_torch()
        self._through = None if dropout is None else Through(dropout, n)
        with self._through or nullcontext(), torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            out: Tensor = self.model(**inputs).logits
        return out.float()

    def _contexts(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """What a checkpointed layer runs in, forward and when it is computed again: the same masks both times."""
        again = nullcontext() if self._through is None else self._through.again()
        return nullcontext(), again

    def weights_changed(self) -> None:
        """Nothing is kept of the weights."""


def load(
    directory: Path,
    labels: LabelMap,
    *,
    hidden_dropout: float | None = None,
    attention_dropout: float | None = None,
    head_dropout: float | None = None,
    seed: int = 0,
) -> nn.Module:
    """The stock classification model of a checkpoint, in fp32; a head it does not have is drawn from `seed`.

    Raises:
        ModelError: the checkpoint is no encoder of the family, has no weights, lacks some, or is damaged.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    if not list(directory.glob("*.safetensors")):
        raise ModelError(f"{directory}: holds no model.safetensors, so it has no weights that can be read safely.")
    with quiet():
        try:
            config = AutoConfig.from_pretrained(directory)
        except (ValueError, OSError, KeyError) as error:
            raise ModelError(f"{directory}/config.json: cannot be read as a configuration: {_first_line(error)}") from error
        if config.model_type not in FAMILY:
            raise ModelError(
                f"{directory}: is a {config.model_type!r} model, no encoder of the BERT family. "
                f"Set model.name_or_path to one of: {', '.join(FAMILY)}."
            )
        config.num_labels = len(labels.names)
        config.id2label, config.label2id = labels.id2label, labels.label2id
        config.problem_type = labels.problem_type
        for names, value in (
            (_HIDDEN_DROPOUT, hidden_dropout),
            (_ATTENTION_DROPOUT, attention_dropout),
            (_HEAD_DROPOUT, head_dropout),
        ):
            for name in names:
                if value is not None and hasattr(config, name):
                    setattr(config, name, value)
        torch.manual_seed(seed)
        try:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                directory, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
            )
        except Exception as error:  # damaged files raise errors of many libraries; whichever it is, the checkpoint is unusable
            raise ModelError(
                f"{directory}: its weights cannot be loaded: {type(error).__name__}: {_first_line(error)}"
            ) from error
    _check_weights(directory, model, info)
    stock: nn.Module = model
    return stock


def _check_weights(directory: Path, model: Any, info: Mapping[str, Any]) -> None:
    prefix = model.base_model_prefix + "."
    missing = sorted(k for k in info["missing_keys"] if k.startswith(prefix) and ".pooler." not in k)
    mismatched = sorted(str(m[0] if isinstance(m, tuple) else m) for m in info.get("mismatched_keys", ()))
    bad = missing + [k for k in mismatched if k.startswith(prefix)]
    if bad:
        raise ModelError(
            f"{directory}: {len(bad)} weights of the encoder are missing or of another shape, {bad[0]} first. "
            f"The weights and config.json do not belong together."
        )


def runner(
    model: nn.Module, dtype: torch.dtype, *, gradient_checkpointing: bool = False, torch_compile: bool = False
) -> Classifier:
    """The fastest way this machine runs the model: packed for BERT and those with its layers, padded for the rest.

    `torch_compile` is for packed layers on a GPU: on a CPU they are written out already.
    """
    config: Any = model.config
    if config.model_type in PACKED and getattr(config, "position_embedding_type", "absolute") == "absolute":
        compiler = "inductor" if torch_compile and next(model.parameters()).is_cuda else None
        return PackedClassifier(model, dtype, gradient_checkpointing=gradient_checkpointing, compiler=compiler)
    return PaddedClassifier(model, dtype, gradient_checkpointing=gradient_checkpointing)


def targets(labels: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Class ids (B,) int64, or 0/1 marks (B, C) fp32 where a row may have several classes."""
    return on_device(labels.astype(np.int64 if labels.ndim == 1 else np.float32), device)


def losses(logits: Tensor, target: Tensor, *, class_weights: Tensor | None, smoothing: float) -> Tensor:
    """Loss of each sequence, shape (B,): cross entropy, or the sum over classes of binary cross entropies.

    With class weights a row counts by the weight of its class: divide the sum by `loss_weights(...).sum()` for the mean.
    """
    if target.ndim == 1:
        return F.cross_entropy(logits, target, weight=class_weights, label_smoothing=smoothing, reduction="none")
    smooth = target * (1.0 - smoothing) + 0.5 * smoothing
    return F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=class_weights, reduction="none").mean(1)


def loss_weights(target: Tensor, class_weights: Tensor | None) -> Tensor:
    """How much each sequence counts in the mean loss, shape (B,)."""
    if target.ndim == 1 and class_weights is not None:
        return class_weights[target]
    return torch.ones(len(target), device=target.device)


def balanced_weights(labels: npt.NDArray[Any], n_classes: int) -> npt.NDArray[np.float64]:
    """Weight of each class (C,), inverse to how often it occurs: R / (classes present · rows of the class), as in scikit-learn.

    Where a row may have several classes: rows without the class over rows with it.
    """
    if labels.ndim == 2:
        positive = labels.sum(axis=0)
        return np.asarray(
            np.divide(len(labels) - positive, positive, out=np.ones(n_classes), where=positive > 0), dtype=np.float64
        )
    counts = np.bincount(labels, minlength=n_classes)
    present = counts > 0
    return np.asarray(np.divide(len(labels), present.sum() * counts, out=np.zeros(n_classes), where=present))


def probabilities(logits: npt.NDArray[np.float32], problem_type: str) -> npt.NDArray[np.float64]:
    """Softmax over classes, or a sigmoid for each: (N, C) to (N, C), in float64."""
    wide = logits.astype(np.float64)
    if problem_type == MULTI:
        return np.exp(-np.logaddexp(0.0, -wide))
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back transformers' progress bars and its report that the head is new, which is as it should be."""
    from transformers.utils import logging

    messages: Any = logging

    before = messages.get_verbosity()
    progress = messages.is_progress_bar_enabled()
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(before)
        if progress:
            messages.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def scores(logits: npt.NDArray[np.float32], labels: npt.NDArray[Any]) -> dict[str, float]:
    """Validation figures of logits (R, C): loss, accuracy (of whole rows, where a row may have several classes), macro_f1."""
    if labels.ndim == 1:
        p = probabilities(logits, SINGLE)
        confusion = confusion_matrix(labels, p.argmax(axis=1), logits.shape[1])
        accuracy, f1 = float(np.trace(confusion) / max(1, confusion.sum())), class_scores(confusion)
        present = ~f1.absent
        return {"loss": log_loss(labels, p), "accuracy": accuracy, "macro_f1": float(f1.f1[present].mean())}
    p, actual = probabilities(logits, MULTI), labels.astype(bool)
    said = p >= 0.5
    loss = -(np.where(actual, np.log(np.maximum(p, _TINY)), np.log(np.maximum(1 - p, _TINY)))).mean()
    hits, marked = (said & actual).sum(0), said.sum(0) + actual.sum(0)
    f1s = 2 * hits[marked > 0] / marked[marked > 0]
    return {
        "loss": float(loss),
        "accuracy": float((said == actual).all(axis=1).mean()),
        "macro_f1": float(f1s.mean()) if len(f1s) else 0.0,
    }
