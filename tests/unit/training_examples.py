"""A small labelled data set and recipe for the tests of the engine: one of two words in a sequence decides its class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DistilBertConfig, DistilBertModel

from dagobert.heads import classification
from dagobert.heads.classification import Classifier
from dagobert.labels import LabelMap
from dagobert.params import load_params
from dagobert.params.train import TrainParams
from dagobert.shards import TokenStore
from dagobert.training import Examples, prepare

LABELS = LabelMap("single_label_classification", ("0", "1"), ("negative", "positive"))
torch.set_num_threads(1)  # the models are tiny: two threads only wait for each other

REPOSITORY = Path(__file__).resolve().parents[2]


def recipe(**changes: Any) -> TrainParams:
    """params.yaml's recipe on one thread in fp32, with changes."""
    base = load_params(REPOSITORY / "params.yaml").train.model_dump()
    base |= {"threads": 1, "precision": "fp32", "train_batch_size": 8, "learning_rate": 1e-3, "save_steps": 1000}
    return TrainParams.model_validate(base | changes)


def examples(n: int = 48, seed: int = 0, longest: int = 24) -> Examples:
    """n sequences of 3 to `longest` tokens; word 50 or 51 stands in each and is its class."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, longest + 1, size=n)
    labels = generator.integers(0, 2, size=n)
    pieces = []
    for length, label in zip(lengths, labels, strict=True):
        ids = generator.integers(52, 80, size=length)
        ids[0], ids[-1] = 2, 3
        ids[generator.integers(1, length - 1)] = 50 + label
        pieces.append(ids)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    store = TokenStore.from_arrays(np.concatenate(pieces).astype(np.uint16), offsets)
    index = np.arange(n)
    return Examples(store, index, index, index + 1000, labels.astype(np.int64))


def distilbert(path: Path) -> Path:
    """A random DistilBERT of 2 layers: an encoder that runs padded, through transformers."""
    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=90, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64)
    with classification.quiet():
        DistilBertModel(config).save_pretrained(path)
    return path


def classifier(tiny_bert: Path, ours: TrainParams) -> Classifier:
    """A tiny checkpoint with a fresh head, ready to train."""
    return prepare(tiny_bert, LABELS, ours, torch.device("cpu"))
