"""What `bench.train` measures: each engine takes the same sequences once and says how many seconds it needed."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from bench import workload
from bench.baselines import padded, tutorial
from bench.workload import Workload
from dagobert.batches import cut, pack
from dagobert.errors import DagobertError
from dagobert.heads import classification
from dagobert.heads.classification import Classifier
from dagobert.scoring import Scorer
from dagobert.training import StopRequest, Trainer

CEILING = ((4096, 384, 1536), (4096, 768, 3072))


class NotHereError(Exception):
    """An engine cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Setting:
    """What is measured on what."""

    model: str
    sequences: int
    max_length: int
    batch_size: int
    tokens: int
    device: torch.device
    dtype: torch.dtype

    @cached_property
    def work(self) -> Workload:
        """The sequences of a round."""
        return workload.make(self.sequences, self.max_length)

    @cached_property
    def one_batch(self) -> Workload:
        """What the tutorial gets: each of its batches costs the same."""
        return workload.make(min(self.batch_size, self.sequences), self.max_length)

    def new_model(self, attention_dropout: float = 0.0) -> nn.Module:
        """The classifier, the same weights every time."""
        return workload.model(self.model, attention_dropout=attention_dropout)


def recipe(setting: Setting) -> Any:
    """The same recipe as the baselines': what `TrainParams` holds, without params.yaml or pydantic."""
    return SimpleNamespace(
        seed=0, num_train_epochs=1, learning_rate=1e-4, weight_decay=0.01, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8,
        max_grad_norm=1.0, lr_scheduler_type="linear", warmup_steps=0.0, train_batch_size=setting.batch_size,
        train_batch_tokens=None, tokens_per_batch=setting.tokens, train_sampling="uniform", class_weights="none",
        eval_strategy="epoch", eval_steps=1, load_best_model_at_end=False, metric_for_best_model="loss",
        early_stopping_patience=None, layer_wise_lr_decay=1.0, label_smoothing_factor=0.0, save_steps=10**9,
    )  # fmt: skip


def trainer_of(setting: Setting, ready: Classifier | None = None) -> Trainer:
    """The packed engine, ready to run."""
    data = setting.work.examples()
    if ready is None:
        ready = classification.runner(setting.new_model().to(setting.device).train(), setting.dtype)
    return Trainer(ready, data, data, recipe(setting), None, StopRequest())


def packed_training(setting: Setting, deterministic: bool) -> float:
    """One epoch of the packed engine."""
    torch.use_deterministic_algorithms(deterministic)
    return _epoch(trainer_of(setting))


def compiled_training(setting: Setting) -> float:
    """One epoch with `train.torch_compile`, after one that is not counted and compiles.

    Raises:
        NotHereError: this is no GPU, or it has no compiler.
    """
    if setting.device.type != "cuda":
        raise NotHereError("train.torch_compile is for a GPU")
    ready = classification.runner(setting.new_model().to(setting.device).train(), setting.dtype, torch_compile=True)
    try:
        _epoch(trainer_of(setting, ready))
        return _epoch(trainer_of(setting, ready))
    except Exception as error:  # of many libraries: no compiler, none for this GPU
        raise NotHereError(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}") from error


def _epoch(run: Trainer) -> float:
    started = workload.clock()
    for _ in range(run.total):
        run._train_step()
    run._read()
    _wait(run.device)
    return workload.clock() - started


def batch_assembly(setting: Setting) -> float:
    """What of that is planning the epoch and laying sequences end to end, up to the copy to the device."""
    run = trainer_of(setting)
    started = workload.clock()
    for _ in range(run.total):
        for piece in cut(run._step_index(), run.lengths, setting.tokens):
            pack(run.train.store, run.train.sequences[piece], setting.device)
        run.state.step += 1
    _wait(setting.device)
    return workload.clock() - started


def packed_scoring(setting: Setting) -> float:
    """Token ids to logits by `Scorer`."""
    scorer = Scorer(classification.runner(setting.new_model().to(setting.device), setting.dtype), setting.device, 2)
    store = setting.work.store()
    started = workload.clock()
    scorer.logits(store)
    return workload.clock() - started


def packed_scoring_of_texts(setting: Setting) -> float:
    """Texts to logits, as `dagobert predict` does it."""
    import pyarrow as pa

    from dagobert.tokens import Tokenization

    texts, directory = reviews(setting.sequences)
    tokenization = Tokenization(Path(directory), setting.max_length, "head")
    scorer = Scorer(classification.runner(setting.new_model().to(setting.device), setting.dtype), setting.device, 2)
    column = pa.array(texts)
    started = workload.clock()
    scorer.logits(tokenization.store(column))
    return workload.clock() - started


def pipeline_scoring(setting: Setting) -> float:
    """The same texts by transformers' pipeline."""
    from bench.baselines import pipeline

    texts, directory = reviews(setting.sequences)
    return pipeline.score(setting.new_model(), texts, directory, setting.device, setting.max_length)


@cache
def reviews(n: int) -> tuple[list[str], str]:
    """n reviews in random order, and the directory of BERT's tokenizer, where the packages that hold them are installed.

    Raises:
        NotHereError: they are not.
    """
    try:
        from bench import tokenization
        from dagobert.pretrained import checkpoint_directory

        table, directory = tokenization.reviews(), checkpoint_directory(tokenization.MODEL)
    except (ImportError, DagobertError) as error:
        raise NotHereError(f"no texts: {str(error).splitlines()[0]}") from error
    chosen = torch.randperm(table.num_rows, generator=torch.Generator().manual_seed(0))[:n]
    return table["text"].take(chosen.numpy()).to_pylist(), str(directory)


def hugging_face(setting: Setting, attention_dropout: float) -> float:
    """One epoch of Hugging Face's Trainer."""
    try:
        import accelerate  # noqa: F401  # the Trainer's own requirement

        from bench.baselines import trainer
    except ImportError as error:
        raise NotHereError(f"Trainer needs accelerate: {str(error).splitlines()[0]}") from error
    return trainer.train(setting.new_model(attention_dropout), setting.work, setting.device, batch_size=setting.batch_size)


def ceiling(device: torch.device, dtype: torch.dtype, repeats: int) -> float:
    """The machine's own matrix-product rate, FLOP/s: the best of the two shapes."""
    best = 0.0
    for m, k, n in CEILING:
        factor = 16 if device.type == "cuda" else 1
        a, b = torch.randn(m * factor, k, device=device, dtype=dtype), torch.randn(n, k, device=device, dtype=dtype)
        times = []
        for _ in range(repeats + 2):
            _wait(device)
            started = workload.clock()
            a @ b.t()
            _wait(device)
            times.append(workload.clock() - started)
        best = max(best, 2.0 * m * factor * k * n / statistics.median(times[2:]))
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


# Baselines have a process of their own, because the engine's settings (memory kept, deterministic kernels) would change them.
BASELINES = ("tutorial", "trainer", "trainer, attention dropout 0", "pipeline", "padded stand-in")
COMPILED, FREE = "dagobert, torch_compile: true", "dagobert, full_determinism: false"
OURS = ("dagobert", FREE, COMPILED, "batch assembly", "scoring texts", "scoring", "ceiling")


def engines(setting: Setting) -> dict[str, tuple[int, Callable[[], float]]]:
    """Of each engine, how many sequences it takes, and what runs it and gives the seconds."""
    n, few = setting.sequences, len(setting.one_batch.sequences)
    device, size = setting.device, setting.batch_size
    repeats = 20 if device.type == "cuda" else 1 if setting.model == "tiny" else 5
    return {
        "tutorial": (few, lambda: tutorial.train(setting.new_model(0.1), setting.one_batch, device, batch_size=size)),
        "trainer": (n, lambda: hugging_face(setting, 0.1)),
        "trainer, attention dropout 0": (n, lambda: hugging_face(setting, 0.0)),
        "pipeline": (n, lambda: pipeline_scoring(setting)),
        "padded stand-in": (n, lambda: padded.score(setting.new_model(), setting.work, device)),
        "dagobert": (n, lambda: packed_training(setting, deterministic=True)),
        FREE: (n, lambda: packed_training(setting, deterministic=False)),
        COMPILED: (n, lambda: compiled_training(setting)),
        "batch assembly": (n, lambda: batch_assembly(setting)),
        "scoring texts": (n, lambda: packed_scoring_of_texts(setting)),
        "scoring": (n, lambda: packed_scoring(setting)),
        "ceiling": (n, lambda: n / ceiling(device, setting.dtype, repeats)),
    }
