"""The training loop: for each epoch train, then validate; the best model is kept.

One optimizer step is a fixed set of sequences. It is cut into micro-batches by a token budget, and its loss and gradient do
not depend on the cut: every sequence counts by its weight over the weight of the whole step, and dropout is keyed to the
place in the step. Everything that decides a step is a function of (recipe, seed, step), so the state of a run is its
numbers and its position.

Shapes: S sequences, R rows (documents), C classes.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dagobert import distributed, events, lora, optim
from dagobert.batches import IntArray, Shapes, cut, epoch_steps, pack
from dagobert.checkpoints import Checkpoint, Checkpoints
from dagobert.dropout import Dropout
from dagobert.encoder import compute_dtype
from dagobert.errors import NonFiniteLossError, Preempted, TrainingError
from dagobert.heads import classification
from dagobert.heads.classification import Classifier
from dagobert.labels import LabelMap
from dagobert.scoring import Scorer, is_out_of_memory
from dagobert.shards import TokenStore, mean_by_document

if TYPE_CHECKING:
    from dagobert.params.train import TrainParams

_READ_EVERY = 10  # steps between looks at the loss on a GPU
_CURVE_POINTS = 500  # the loss curve has at most this many training points
_SKIPPED = 20  # fp16: optimizer steps in a row without a finite gradient, until the loss scale is below 1: an error


@dataclass(frozen=True)
class Examples:
    """Labelled rows as sequences of a store.

    Attributes:
        store: where the tokens are.
        sequences: positions in the store, shape (S,).
        document: which row each sequence belongs to, non-decreasing, shape (S,).
        row_ids: of each row, shape (R,).
        labels: class ids (R,), or 0/1 marks (R, C) where a row may have several classes.
    """

    store: TokenStore
    sequences: IntArray
    document: IntArray
    row_ids: IntArray
    labels: npt.NDArray[Any]

    @property
    def lengths(self) -> IntArray:
        """Tokens of each sequence, shape (S,)."""
        return self.store.lengths[self.sequences]

    @property
    def n_classes(self) -> int:
        """Classes seen in the labels (marks: columns)."""
        return self.labels.shape[1] if self.labels.ndim == 2 else int(self.labels.max(initial=0)) + 1


@dataclass
class State:
    """Where a run stands. All of it goes into a checkpoint."""

    step: int = 0
    validated: int = 0  # step of the last validation
    tokens: int = 0
    examples: int = 0
    budget: int = 0  # tokens computed at once; lowered when memory runs out
    scaler: dict[str, Any] = field(default_factory=dict)  # fp16: the loss scale
    skipped: int = 0  # fp16: steps in a row that were left out because the gradient overflowed
    best_step: int | None = None
    best_value: float | None = None
    without_improvement: int = 0
    stopped_early: bool = False
    curve: list[tuple[int, float]] = field(default_factory=list)
    curve_sum: float = 0.0
    curve_count: int = 0
    validation: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What a finished run says of itself; the model holds the best weights."""

    steps: int
    total_steps: int
    tokens: int
    examples: int
    best: dict[str, Any]
    stopped_early: bool
    validation: list[dict[str, Any]]
    curve: list[tuple[int, float]]


@dataclass(frozen=True)
class _Unread:
    """A step whose figures still lie on the device: loss, norm, and the losses of this process's sequences."""

    step: int
    index: IntArray
    loss: Tensor
    each: Tensor
    norm: Tensor


class StopRequest:
    """Whether somebody asked the process to stop (SIGTERM, or Ctrl-C once; the second Ctrl-C interrupts)."""

    def __init__(self) -> None:
        self.asked: str | None = None

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Listen to the signals while the block runs (main thread only)."""
        before = {s: signal.signal(s, self._handle) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name


class _StopWhileValidating(Exception):
    """Ends a validation that will be done again by the resumed run."""


class _ValidationBar:
    def __init__(self, bar: events.Progress, stop: StopRequest) -> None:
        self.bar, self.stop, self.stopped = bar, stop, False

    def update(self, n: int = 1) -> None:
        self.bar.update(n)
        if self.stop.asked:
            self.stopped = True
            raise _StopWhileValidating


class Trainer:
    """One run. Use through `fine_tune`."""

    def __init__(
        self,
        classifier: Classifier,
        train: Examples,
        validation: Examples,
        recipe: TrainParams,
        checkpoints: Checkpoints | None,
        stop: StopRequest,
    ) -> None:
        self.classifier, self.train, self.validation = classifier, train, validation
        self.recipe, self.checkpoints, self.stop = recipe, checkpoints, stop
        model: Any = classifier.model
        self.model: nn.Module = model
        self.device = next(self.model.parameters()).device
        self.n_classes = int(model.config.num_labels)
        self.lengths = train.lengths
        longest = int(self.lengths.max(initial=1))
        self.shapes = Shapes.within(recipe.tokens_per_batch, longest) if classifier.compiled else None
        self.class_weights, self.sampling = self._weights()
        self.state = State(budget=recipe.tokens_per_batch)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=classifier.dtype == torch.float16)
        self.best: dict[str, Tensor] | None = None
        self.named: dict[str, Tensor] = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if not self.named:
            raise TrainingError("nothing is left to train: every parameter is frozen. Lower train.freeze.")
        self.parameters = list(self.named.values())
        self.optimizer = self._optimizer()
        self.epoch_lengths = [len(self._steps(epoch)) for epoch in range(recipe.num_train_epochs)]
        self.total = sum(self.epoch_lengths)
        self.warmup = optim.warmup_count(recipe.warmup_steps, self.total)
        self.curve_every = max(1, self.total // _CURVE_POINTS)
        self.unread: list[_Unread] = []
        self.read_every = 1 if self.device.type == "cpu" else _READ_EVERY
        self.loss = math.nan  # of the last step that was read
        self._plan: tuple[int, list[IntArray]] | None = None

    # ---- the loop

    def run(self) -> Outcome:
        """Train from where the state stands to the end."""
        self._resume()
        with events.progress("training", len(self.lengths) * self.recipe.num_train_epochs, unit="examples") as bar:
            bar.start_at(self.state.examples)
            while True:
                if self._validation_due():
                    self._validate_or_stop()
                if self.state.stopped_early or self.state.step == self.total:
                    break
                rows, loss = self._train_step()
                bar.update(rows, loss=loss)
                if distributed.any_of(self.stop.asked is not None):
                    self._preempt()
                if self.state.step % self.recipe.save_steps == 0 and self.state.step < self.total:
                    self.save()
        return self._finish()

    def _train_step(self) -> tuple[int, float]:
        index = self._step_index()
        recipe, state = self.recipe, self.state
        loss, each = self._gradients_within_memory(index)
        distributed.add_up([p.grad for p in self.parameters if p.grad is not None])
        rate = recipe.learning_rate * optim.schedule(recipe.lr_scheduler_type, state.step, self.warmup, self.total)
        optim.set_learning_rate(self.optimizer, rate)
        self.scaler.unscale_(self.optimizer)
        norm = optim.gradient_norm(self.parameters)
        self.unread.append(_Unread(state.step + 1, index, loss, each, norm))
        if len(self.unread) >= self.read_every or math.isnan(self.loss):
            self._read()
        optim.clip(self.parameters, norm, recipe.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.classifier.weights_changed()
        state.step += 1
        state.examples += len(index)
        state.tokens += int(self.lengths[index].sum())
        return len(index), self.loss

    def _read(self) -> None:
        """Look at the loss and the gradient norm of the steps since the last time: a GPU is waited for here and not each step.

        Raises:
            NonFiniteLossError: one of them is NaN or infinite. What later steps made of it is neither saved nor published.
        """
        unread, self.unread = self.unread, []
        if not unread:
            return
        figures = torch.stack([f.to(torch.float32) for u in unread for f in (u.loss, u.norm)]).view(-1, 2).tolist()
        for one, (loss, norm) in zip(unread, figures, strict=True):
            if not math.isfinite(loss):
                self._loss_not_finite(one, loss)
            if math.isfinite(norm):
                self.state.skipped = 0
            else:
                self._gradient_not_finite(one, norm)
            self.loss = loss
            self._record(one.step, loss)

    def _gradients_within_memory(self, index: IntArray) -> tuple[Tensor, Tensor]:
        """`_gradients`, again with half the tokens at once where memory runs out: the same result."""
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                return self._gradients(index)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                longest = int(self.lengths[index].max())
                if self.state.budget <= longest:
                    raise TrainingError(
                        f"out of memory with one sequence of {longest} tokens. Lower tokenize.max_length, or set "
                        f"train.gradient_checkpointing: true."
                    ) from error
            self.state.budget = max(longest, self.state.budget // 2)
            events.warn(f"out of memory: the step is repeated with {self.state.budget:,} tokens at once")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _gradients(self, index: IntArray) -> tuple[Tensor, Tensor]:
        """Add the gradient of one optimizer step's mean loss to the parameters; give that loss and those of the sequences.

        With several processes: this one's share of the gradient and of the sequences, and the loss of all.
        """
        documents = self.train.document[index]
        target = classification.targets(self.train.labels[documents], self.device)
        total = classification.loss_weights(target, self.class_weights).sum()
        found: list[Tensor] = []
        mine = distributed.share(self.lengths[index])
        at, tokens = mine.start, int(self.lengths[index[: mine.start]].sum())
        for piece in cut(index[mine], self.lengths, self.state.budget, padded=self.classifier.padded):
            batch = pack(
                self.train.store,
                self.train.sequences[piece],
                self.device,
                first_token=tokens,
                first_sequence=at,
                shapes=self.shapes,
            )
            dropout = Dropout(self.recipe.seed, self.state.step, tokens, at)
            logits = self.classifier.logits(batch, dropout)
            each = classification.losses(
                logits,
                target[at : at + len(piece)],
                class_weights=self.class_weights,
                smoothing=self.recipe.label_smoothing_factor,
            )
            torch.autograd.backward(self.scaler.scale(each.sum() / total))
            found.append(each.detach())
            at += len(piece)
            tokens += sum(batch.lengths)
        for p in self.parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad  # a share may be empty, or a layer unused
        each = torch.cat(found) if found else torch.zeros(0, device=self.device)
        summed = each.sum() / total
        distributed.add_up([summed])
        return summed, each

    def _loss_not_finite(self, one: _Unread, loss: float) -> None:
        bad = torch.zeros(len(one.index), device=self.device)
        bad[distributed.share(self.lengths[one.index])] = (~torch.isfinite(one.each)).float()
        distributed.add_up([bad])  # each process saw its share alone
        rows, where = self.train.row_ids[self.train.document[one.index]], bad.cpu().numpy() > 0
        self._not_finite(f"loss of optimizer step {one.step}", loss, rows[where] if where.any() else rows)

    def _gradient_not_finite(self, one: _Unread, norm: float) -> None:
        """In fp16 the scaler leaves such a step out and lowers its scale: an error only where that does not help."""
        self.state.skipped += 1
        scale = self.scaler.get_scale()
        if not self.scaler.is_enabled() or (self.state.skipped >= _SKIPPED and scale < 1.0):
            what = f"gradient of optimizer step {one.step}"
            skipped = f"{what}, as of the {_SKIPPED - 1} before, with a loss scale of {scale:g},"
            rows = self.train.row_ids[self.train.document[one.index]]
            self._not_finite(skipped if self.scaler.is_enabled() else what, norm, rows)

    def _not_finite(self, what: str, value: float, rows: IntArray) -> None:
        rows = np.unique(rows)
        shown = ", ".join(map(str, rows[:10].tolist())) + (f" and {len(rows) - 10} more" if len(rows) > 10 else "")
        raise NonFiniteLossError(
            f"the {what} is {value} (row_id {shown}). Nothing was published. "
            f"Lower train.learning_rate, or set train.precision: fp32."
        )

    # ---- where a step comes from

    def _steps(self, epoch: int) -> list[IntArray]:
        return epoch_steps(
            self.lengths,
            self.recipe.train_batch_size,
            self.recipe.seed,
            epoch,
            tokens=self.recipe.train_batch_tokens,
            grouped=self.classifier.padded,
            weights=self.sampling,
        )

    def _epoch(self) -> int:
        """0-based epoch of the next step."""
        before = 0
        for epoch, length in enumerate(self.epoch_lengths):
            if self.state.step < before + length:
                return epoch
            before += length
        return len(self.epoch_lengths)

    def _step_index(self) -> IntArray:
        epoch = self._epoch()
        if self._plan is None or self._plan[0] != epoch:
            self._plan = epoch, self._steps(epoch)
        return self._plan[1][self.state.step - sum(self.epoch_lengths[:epoch])]

    def _weights(self) -> tuple[Tensor | None, npt.NDArray[np.float64] | None]:
        """Weight of each class in the loss (C,), and of each sequence in sampling (S,); None where all are equal."""
        recipe = self.recipe
        wanted = recipe.class_weights
        weights: npt.NDArray[np.float64] | None = None
        if wanted == "balanced":
            weights = classification.balanced_weights(self.train.labels, self.n_classes)
        elif wanted != "none":
            if len(wanted) != self.n_classes:
                raise TrainingError(
                    f"train.class_weights has {len(wanted)} numbers, but there are {self.n_classes} classes. Give one a class."
                )
            weights = np.asarray(wanted, dtype=np.float64)
        sampling: npt.NDArray[np.float64] | None = None
        if recipe.train_sampling == "balanced":
            if self.train.labels.ndim != 1:
                raise TrainingError("train.train_sampling: balanced needs one class a row. Set it to uniform.")
            by_class = classification.balanced_weights(self.train.labels, self.n_classes)
            sampling = by_class[self.train.labels[self.train.document]]
        tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=self.device)
        return tensor, sampling

    def _optimizer(self) -> torch.optim.Optimizer:
        recipe = self.recipe
        return torch.optim.AdamW(
            optim.parameter_groups(self.model, recipe.weight_decay, recipe.layer_wise_lr_decay),
            lr=recipe.learning_rate,
            betas=(recipe.adam_beta1, recipe.adam_beta2),
            eps=recipe.adam_epsilon,
            fused=True,
        )

    # ---- validation

    def _validation_due(self) -> bool:
        state, recipe = self.state, self.recipe
        if state.step == 0 or state.validated == state.step:
            return False
        ends = np.cumsum(self.epoch_lengths)
        by_step = recipe.eval_strategy == "steps" and state.step % recipe.eval_steps == 0
        return bool(by_step or state.step == self.total or (recipe.eval_strategy == "epoch" and state.step in ends))

    def _validate_or_stop(self) -> None:
        self._read()
        try:
            figures = self._validate()
        except _StopWhileValidating:
            self._preempt()
            return
        state, recipe = self.state, self.recipe
        state.validated = state.step
        epoch = self._epoch_fraction()
        state.validation.append({"step": state.step, "epoch": epoch, **figures})
        value = figures[recipe.metric_for_best_model]
        better = -value if recipe.metric_for_best_model == "loss" else value
        if state.best_value is None or better > state.best_value:
            state.best_value, state.best_step, state.without_improvement = better, state.step, 0
            self.best = {name: p.detach().clone() for name, p in self.named.items()}
        else:
            state.without_improvement += 1
        patience = recipe.early_stopping_patience
        state.stopped_early = patience is not None and state.without_improvement >= patience and state.step < self.total
        shown = ", ".join(f"{name} {figure:.4f}" for name, figure in figures.items())
        events.say(f"epoch {epoch:g}, step {state.step}: {shown}", step=state.step, **figures)
        if state.step < self.total:
            self.save()

    def _epoch_fraction(self) -> float:
        before = 0
        for epoch, length in enumerate(self.epoch_lengths):
            if self.state.step <= before + length:
                return round(epoch + (self.state.step - before) / length, 4)
            before += length
        return float(len(self.epoch_lengths))

    def _validate(self) -> dict[str, float]:
        examples = self.validation
        scorer = Scorer(self.classifier, self.device, self.n_classes, self.state.budget)
        mine = distributed.share(examples.lengths)
        logits = np.zeros((len(examples.sequences), self.n_classes), dtype=np.float32)
        with events.progress("validating", len(examples.sequences[mine]), unit="examples") as bar:
            progress = _ValidationBar(bar, self.stop)
            with suppress(_StopWhileValidating) if distributed.world() > 1 else nullcontext():
                logits[mine] = scorer.logits(examples.store, examples.sequences[mine], progress=progress)
        if distributed.world() > 1 and distributed.any_of(progress.stopped):
            raise _StopWhileValidating  # in all, when each has come here
        together = torch.from_numpy(logits).to(self.device)
        distributed.add_up([together])
        by_row = mean_by_document(together.cpu().numpy(), examples.document)
        bad = ~np.isfinite(by_row).all(axis=1)
        if bad.any():
            what = f"loss of the validation after optimizer step {self.state.step}"
            self._not_finite(what, float(by_row[bad].sum()), examples.row_ids[bad])
        return classification.scores(by_row, examples.labels)

    # ---- state

    def _record(self, step: int, loss: float) -> None:
        state = self.state
        state.curve_sum += loss
        state.curve_count += 1
        if step % self.curve_every == 0 or step == self.total:
            state.curve.append((step, state.curve_sum / state.curve_count))
            state.curve_sum, state.curve_count = 0.0, 0

    def save(self) -> None:
        """Write a checkpoint, where the run has a place for them."""
        self._read()
        if self.checkpoints is not None and distributed.rank() == 0:
            self.checkpoints.save(self.checkpoint())
        distributed.wait()

    def checkpoint(self) -> Checkpoint:
        """Everything the run needs to go on, by reference."""
        tensors: dict[str, Tensor] = {f"model.{name}": p for name, p in self.named.items()}
        for name, value in (self.best or {}).items():
            tensors[f"best.{name}"] = value
        steps = 0.0
        for name, p in self.named.items():
            for key, value in self.optimizer.state[p].items():
                if key == "step":
                    steps = float(value)
                else:
                    tensors[f"{key}.{name}"] = value
        self.state.scaler = self.scaler.state_dict()
        return Checkpoint(self.state.step, tensors, {"optimizer_steps": steps, **asdict(self.state)})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up a checkpoint's numbers and position."""
        values = dict(checkpoint.state)
        steps = values.pop("optimizer_steps")
        values["curve"] = [(int(step), float(loss)) for step, loss in values["curve"]]
        self.state = State(**values)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(self.state.scaler)
        with torch.no_grad():
            for name, p in self.named.items():
                p.copy_(checkpoint.tensors[f"model.{name}"])
                self.optimizer.state[p] = {
                    "step": torch.tensor(steps, dtype=torch.float32, device=p.device if p.is_cuda else "cpu"),
                    **{key: checkpoint.tensors[f"{key}.{name}"].to(p.device, copy=True) for key in ("exp_avg", "exp_avg_sq")},
                }
        self.best = {
            name: checkpoint.tensors[f"best.{name}"].to(self.device)
            for name in self.named
            if f"best.{name}" in checkpoint.tensors
        } or None
        self.classifier.weights_changed()

    def _resume(self) -> bool:
        if self.checkpoints is None:
            return False
        # other nodes may have no checkpoints, or older ones: all go on from that of the first process
        checkpoint, problems = self.checkpoints.latest() if distributed.rank() == 0 else (None, [])
        for problem in problems:
            events.warn(f"a checkpoint is not used: {problem}")
        if distributed.world() > 1:
            data = distributed.from_first(None if checkpoint is None else checkpoint.to_bytes())
            checkpoint = None if data is None else Checkpoint.from_bytes(data)
        if checkpoint is None:
            return False
        self.restore(checkpoint)
        events.say(f"goes on from the checkpoint of step {checkpoint.step:,} of {self.total:,}", resumed_step=checkpoint.step)
        return True

    def _preempt(self) -> None:
        self.save()
        kept = (
            "Its state is saved: run again to go on."
            if self.checkpoints is not None
            else "Nothing was kept: no place was given."
        )
        why = self.stop.asked or "the request of another process"
        raise Preempted(f"stopped on {why} after step {self.state.step:,} of {self.total:,}. {kept}")

    def _finish(self) -> Outcome:
        state = self.state
        assert self.best is not None
        with torch.no_grad():
            for name, p in self.named.items() if self.recipe.load_best_model_at_end else ():
                p.copy_(self.best[name])
        self.classifier.weights_changed()
        published = state.best_step if self.recipe.load_best_model_at_end else state.validated
        best = next(entry for entry in state.validation if entry["step"] == published)
        return Outcome(
            steps=state.step,
            total_steps=self.total,
            tokens=state.tokens,
            examples=state.examples,
            best=best,
            stopped_early=state.stopped_early,
            validation=state.validation,
            curve=state.curve,
        )


def prepare(
    directory: Path,
    labels: LabelMap,
    recipe: TrainParams,
    device: torch.device,
    *,
    dtype: torch.dtype | None = None,
    grow: Callable[[nn.Module], None] | None = None,
) -> Classifier:
    """A checkpoint as the recipe wants it trained: dropouts, layers drawn anew, frozen parts, adapters, the way it is run.

    Args:
        directory: a checkpoint in Hugging Face format.
        labels: the classes.
        recipe: the section `train` of params.yaml.
        device: where it runs.
        dtype: what is computed in; None: what the recipe's precision means there.
        grow: adds words to the vocabulary of the loaded model.
    Raises:
        ModelError: the checkpoint cannot be used.
        ParameterError: the recipe names layers that the model does not have.
        TrainingError: the recipe wants LoRA, and peft is not installed.
    """
    model = classification.load(
        directory,
        labels,
        hidden_dropout=recipe.hidden_dropout_prob,
        attention_dropout=recipe.attention_probs_dropout_prob,
        head_dropout=recipe.classifier_dropout,
        seed=recipe.seed,
    )
    if grow is not None:
        grow(model)
    optim.reinitialize(model, recipe.reinit_layers, recipe.seed)
    optim.freeze(model, recipe.freeze)
    if recipe.lora_r is not None:
        lora.adapt(model, rank=recipe.lora_r, alpha=recipe.lora_alpha, seed=recipe.seed)
    dtype = dtype or compute_dtype(recipe.precision, device)
    return classification.runner(
        model.to(device), dtype, gradient_checkpointing=recipe.gradient_checkpointing, torch_compile=recipe.torch_compile
    )


def fine_tune(
    classifier: Classifier,
    train: Examples,
    validation: Examples,
    recipe: TrainParams,
    *,
    checkpoints: Checkpoints | None = None,
    stop: StopRequest | None = None,
) -> Outcome:
    """Fine-tune a classifier in place; it ends with the weights of the best validation.

    Args:
        classifier: from `prepare`; frozen parameters are those without `requires_grad`.
        train: what is learned from.
        validation: what decides which weights are the best.
        recipe: the section `train` of params.yaml.
        checkpoints: where to keep the state; a run that finds one there goes on from it.
        stop: asked after each step whether to save and end.
    Raises:
        NonFiniteLossError: the loss or its gradient became NaN or infinite.
        BatchBudgetError: a sequence is longer than `tokens_per_batch`.
        Preempted: `stop` was asked to; the state is saved.
    """
    return Trainer(classifier, train, validation, recipe, checkpoints, stop or StopRequest()).run()
