"""Logits of many sequences: sorted by length inside a window, answered in the order asked for, in flat memory.

The same forward as in training, without its records. Only the logits (4 bytes a class and row) grow with the number of rows.

Shapes: N sequences, C classes.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from dagobert import events
from dagobert.batches import IntArray, Shapes, cut, longest_first, pack
from dagobert.determinism import keep_memory
from dagobert.encoder import choose_device, compute_dtype
from dagobert.errors import ModelError, TrainingError
from dagobert.heads import classification
from dagobert.heads.classification import Classifier
from dagobert.labels import LabelMap
from dagobert.shards import TokenStore

WINDOW = 8192  # sequences sorted together
TOKENS = 8192  # tokens computed at once


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or in torch's CPU allocator."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(w in str(error).lower() for w in words)


class Bar(Protocol):
    """What shows progress."""

    def update(self, n: int = 1) -> None:
        """Count n more sequences."""


class Scorer:
    """A classifier that only answers."""

    def __init__(self, classifier: Classifier, device: torch.device, n_classes: int, tokens: int = TOKENS) -> None:
        self.classifier = classifier
        self.device = device
        self.n_classes = n_classes
        self.tokens = tokens

    @classmethod
    def load(cls, model_dir: Path, device: str = "auto", precision: str = "auto", tokens: int = TOKENS) -> Scorer:
        """Load a classification model in Hugging Face format.

        Raises:
            ModelError: no such model, or damaged.
        """
        keep_memory()
        place = choose_device(device)
        labels = read_labels(model_dir)
        model = classification.load(model_dir, labels).to(place).eval()
        runner = classification.runner(model, compute_dtype(precision, place))
        return cls(runner, place, len(labels.names), tokens)

    @torch.no_grad()
    def logits(
        self, store: TokenStore, index: npt.ArrayLike | None = None, progress: Bar | None = None
    ) -> npt.NDArray[np.float32]:
        """Logits of the sequences `index` of a store (default: all), in that order: (N, C) float32."""
        wanted: IntArray = np.arange(len(store)) if index is None else np.asarray(index, dtype=np.int64)
        out = np.empty((len(wanted), self.n_classes), dtype=np.float32)
        self.classifier.model.eval()
        shapes = None
        if self.device.type == "cpu" and not self.classifier.padded and len(wanted):
            shapes = Shapes.rounded(int(store.lengths[wanted].max()))
        for begin in range(0, len(wanted), WINDOW):
            window = wanted[begin : begin + WINDOW]
            lengths = store.lengths[window]
            pieces = self._cut(longest_first(np.arange(len(window)), lengths), lengths)
            while pieces:
                piece = pieces.popleft()
                batch = pack(store, window[piece], self.device, shapes=shapes)
                try:
                    out[begin + piece] = self.classifier.logits(batch).float().cpu().numpy()
                except (RuntimeError, MemoryError) as error:
                    self._lower(error, batch.lengths)
                    pieces = self._cut(np.concatenate([piece, *pieces]), lengths)
                    continue
                if progress is not None:
                    progress.update(len(piece))
        return out

    def _cut(self, order: IntArray, lengths: IntArray) -> deque[IntArray]:
        budget = max(self.tokens, int(lengths[order].max()))
        return deque(cut(order, lengths, budget, padded=self.classifier.padded))

    def _lower(self, error: Exception, lengths: tuple[int, ...]) -> None:
        """Compute half as much at once from here on, where memory ran out; any other error is raised again."""
        if not is_out_of_memory(error):
            raise error
        if len(lengths) == 1:
            raise TrainingError(
                f"out of memory with one sequence of {lengths[0]} tokens. Lower tokenize.max_length."
            ) from error
        self.tokens = max(max(lengths), min(self.tokens, sum(lengths)) // 2)
        events.warn(f"out of memory: scoring goes on with {self.tokens:,} tokens at once")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def read_labels(model_dir: Path) -> LabelMap:
    """The classes that a model's config.json names.

    Raises:
        ModelError: there is no such file, or it names no classes.
    """
    path = model_dir / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        names = {int(key): str(value) for key, value in config["id2label"].items()}
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file, so {model_dir} is no model.") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{path}: names no classes ({type(error).__name__}: {error}), so it is no classifier.") from None
    ordered = tuple(names[i] for i in sorted(names))
    return LabelMap(str(config.get("problem_type") or "single_label_classification"), ordered, ordered)
