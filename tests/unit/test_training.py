"""The loop learns, its loss does not depend on how a step is cut, and a stopped run ends as an undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from dagobert import lora, optim
from dagobert.batches import Shapes, cut, pack
from dagobert.checkpoints import Checkpoint, Checkpoints
from dagobert.dropout import Dropout
from dagobert.errors import NonFiniteLossError, Preempted, TrainingError
from dagobert.heads import classification
from dagobert.heads.classification import PackedClassifier
from dagobert.shards import TokenStore
from dagobert.training import Examples, Outcome, StopRequest, Trainer, fine_tune, prepare
from tests.unit import train_in_processes
from tests.unit.training_examples import LABELS, classifier, distilbert, examples, recipe

TRAIN, VALIDATION = examples(40), examples(16, seed=1)


def train(
    tiny_bert: Path, checkpoints: Checkpoints | None = None, stop: StopRequest | None = None, **changes: Any
) -> tuple[Outcome, dict[str, Tensor]]:
    ours = recipe(**changes)
    ready = classifier(tiny_bert, ours)
    outcome = fine_tune(ready, TRAIN, VALIDATION, ours, checkpoints=checkpoints, stop=stop)
    return outcome, {name: p.clone() for name, p in ready.model.state_dict().items()}


def trainer(tiny_bert: Path, checkpoints: Checkpoints | None = None, data: Examples = TRAIN, **changes: Any) -> Trainer:
    ours = recipe(**changes)
    return Trainer(classifier(tiny_bert, ours), data, VALIDATION, ours, checkpoints, StopRequest())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class StopAfter(StopRequest):
    """Asks to stop when it has been looked at n times: after each step, and after each batch of a validation."""

    def __init__(self, n: int) -> None:
        self.left = n

    @property
    def asked(self) -> str | None:  # type: ignore[override]
        self.left -= 1
        return "SIGTERM" if self.left < 0 else None


def test_it_learns(tiny_bert: Path) -> None:
    outcome, _ = train(tiny_bert, num_train_epochs=12, learning_rate=3e-3)
    assert outcome.validation[-1]["accuracy"] >= 0.9
    assert (outcome.steps, outcome.examples) == (12 * 5, 12 * 40)
    assert [step for step, _ in outcome.curve] == list(range(1, 61))


def test_the_first_step_is_that_of_the_plain_padded_loop(tiny_bert: Path) -> None:
    """Loss, gradients and weights after one step against transformers and torch, dropout off."""
    quiet = {"hidden_dropout_prob": 0.0, "classifier_dropout": 0.0, "warmup_steps": 0.0, "max_grad_norm": 0.5}
    ours = trainer(tiny_bert, **quiet)
    index = ours._step_index()
    plain: Any = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2).eval()
    plain.load_state_dict(ours.classifier.model.state_dict())
    decay = [p for n, p in plain.named_parameters() if not ("bias" in n or "LayerNorm" in n)]
    rest = [p for n, p in plain.named_parameters() if "bias" in n or "LayerNorm" in n]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}], lr=1e-3)

    rows = [TRAIN.store.sequence(int(i)).astype(np.int64) for i in index]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for row, sequence in enumerate(rows):
        ids[row, : len(sequence)] = torch.from_numpy(sequence)
    out = plain(input_ids=ids, attention_mask=(ids != 0).long(), labels=torch.from_numpy(TRAIN.labels[index]))
    out.loss.backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
    expected = {name: p.grad.clone() for name, p in plain.named_parameters()}
    optimizer.step()

    _, loss = ours._train_step()
    assert loss == pytest.approx(float(out.loss.detach()), abs=1e-6)
    for name, p in ours.named.items():
        assert p.grad is not None
        assert (p.grad - expected[name]).abs().max() < 1e-6, name
        moved = expected[name].abs() > 1e-4  # Adam's first step is the sign of the gradient: of nothing, it is noise
        assert ((p - plain.get_parameter(name)).abs() * moved).max() < 1e-5, name


@pytest.fixture(scope="module")
def tiny_distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distilbert(tmp_path_factory.mktemp("distilbert"))


ALL_DROPOUTS = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3, "classifier_dropout": 0.3}
WAYS: dict[str, dict[str, Any]] = {
    "packed": {"classifier_dropout": 0.3},
    "packed, attention dropout": ALL_DROPOUTS,
    "packed, checkpointing": {**ALL_DROPOUTS, "gradient_checkpointing": True},
    "packed, a GPU's masks": {"hidden_dropout_prob": 0.2},
    "padded": ALL_DROPOUTS,
    "padded, checkpointing": {**ALL_DROPOUTS, "gradient_checkpointing": True},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """A way to compute a step: (fixture of the checkpoint, changes of the recipe), all dropouts on."""

    def as_a_gpu(self: Dropout, site: int, rows: int, width: int, p: float, *, tokens: bool = True) -> Tensor:
        return self.device_mask(site, rows, width, p, torch.device("cpu"), tokens=tokens)

    if "GPU" in request.param:
        monkeypatch.setattr(Dropout, "mask", as_a_gpu)
    return "tiny_distilbert" if "padded" in request.param else "tiny_bert", WAYS[request.param]


@pytest.mark.parametrize("budget", [24, 40, 100])
def test_the_loss_does_not_depend_on_how_a_step_is_cut(
    way: tuple[str, dict[str, Any]], budget: int, request: pytest.FixtureRequest
) -> None:
    """With dropout on: masks are keyed to the place in the step."""
    model, changes = request.getfixturevalue(way[0]), way[1]
    whole, pieces = trainer(model, **changes), trainer(model, **changes, tokens_per_batch=budget)
    off = trainer(model, **dict.fromkeys(ALL_DROPOUTS, 0.0))
    for _ in range(3):
        loss = whole._train_step()[1]
        assert loss == pytest.approx(pieces._train_step()[1], abs=1e-6)
        assert abs(loss - off._train_step()[1]) > 1e-4
    for name in whole.named:
        assert torch.allclose(whole.named[name], pieces.named[name], atol=2e-5), name


STOPPING = {"num_train_epochs": 8, "learning_rate": 5e-2, "early_stopping_patience": 2, "metric_for_best_model": "loss"}


@pytest.mark.parametrize(
    ("changes", "stops"),
    [
        ({}, [0]),
        ({}, [3]),
        ({}, [5, 2]),
        ({}, [2, 0, 1, 0, 0]),
        ({"encoder": "padded", **ALL_DROPOUTS}, [3, 4]),
        ({"lora_r": 4, "learning_rate": 1e-2}, [3, 4]),
        ({"train_sampling": "balanced", "class_weights": "balanced"}, [3, 4]),
        (STOPPING, [3, 9, 2]),
    ],
    ids=lambda value: " ".join(map(str, value)) or "packed",
)
def test_a_stopped_run_ends_with_the_bytes_of_an_undisturbed_one(
    tiny_bert: Path, tiny_distilbert: Path, tmp_path: Path, changes: dict[str, Any], stops: list[int]
) -> None:
    settings = dict(changes)
    model = tiny_distilbert if settings.pop("encoder", None) else tiny_bert
    if "lora_r" in settings:
        pytest.importorskip("peft")
    expected, weights = train(model, **settings)
    checkpoints = Checkpoints(tmp_path)
    for n in stops:
        with pytest.raises(Preempted, match="run again to go on"):
            train(model, checkpoints, StopAfter(n), **settings)
    outcome, resumed = train(model, checkpoints, **settings)
    assert same(resumed, weights)
    assert outcome == expected
    assert outcome.stopped_early == (changes is STOPPING)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_computes_in_it_resumes_exactly_and_repeats(
    tiny_bert: Path, tmp_path: Path, precision: str, dtype: torch.dtype
) -> None:
    expected, weights = train(tiny_bert, precision=precision)
    assert classifier(tiny_bert, recipe(precision=precision)).dtype == dtype
    wide, of_fp32 = train(tiny_bert)
    assert expected.curve != wide.curve
    assert expected.curve[0][1] == pytest.approx(wide.curve[0][1], abs=0.02)
    assert all(p.dtype == torch.float32 for p in weights.values() if p.is_floating_point())
    assert not same(weights, of_fp32)
    assert same(train(tiny_bert, precision=precision)[1], weights)
    checkpoints = Checkpoints(tmp_path)
    for n in (3, 2):
        with pytest.raises(Preempted):
            train(tiny_bert, checkpoints, StopAfter(n), precision=precision)
    saved = checkpoints.latest()[0]
    assert saved is not None
    assert bool(saved.state["scaler"]) == (precision == "fp16")
    outcome, resumed = train(tiny_bert, checkpoints, precision=precision)
    assert same(resumed, weights)
    assert outcome == expected


def test_the_loss_scale_of_fp16_goes_on_where_it_was(tiny_bert: Path, tmp_path: Path) -> None:
    """The scale begins too large for the first steps, and is halved: a resumed run must not begin anew."""
    run = trainer(tiny_bert, Checkpoints(tmp_path), precision="fp16")
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, growth_interval=3)
    before = {name: p.clone() for name, p in run.named.items()}
    run._train_step()
    assert run.scaler.get_scale() == 2.0**29
    assert same(dict(run.named), before)  # a step whose gradient overflowed changes nothing
    while run.scaler.get_scale() >= 2.0**29 or same(dict(run.named), before):
        run._train_step()
    run.save()
    resumed = trainer(tiny_bert, Checkpoints(tmp_path), precision="fp16")
    assert resumed._resume()
    assert resumed.scaler.get_scale() == run.scaler.get_scale()
    for _ in range(4):
        assert resumed._train_step() == run._train_step()
        assert resumed.scaler.state_dict() == run.scaler.state_dict()
    assert same(dict(resumed.named), dict(run.named))


def without(piece: str, saved: Checkpoint, fresh: Checkpoint) -> Checkpoint:
    """A checkpoint that lacks a piece: what is not in it begins as in a fresh run."""
    tensors = {name: t.clone() for name, t in saved.tensors.items()}
    state = dict(saved.state)
    if piece == "model":
        tensors |= fresh.tensors
    elif piece == "optimizer":
        tensors = {name: torch.zeros_like(t) if name.startswith("exp_avg") else t for name, t in tensors.items()}
    elif piece == "best":
        tensors = {name: t for name, t in tensors.items() if not name.startswith("best.")}
        state |= {name: fresh.state[name] for name in ("best_value", "best_step")}
    elif piece in state:
        state[piece] = fresh.state[piece]
    return Checkpoint(saved.step, tensors, state)


def begin_anew(piece: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers and the schedule are functions of the checkpoint's step: without it they count from the resume."""
    if piece == "rng":
        monkeypatch.setattr("dagobert.training.Dropout", lambda seed, at, *place: Dropout(seed, at - step, *place))
    if piece == "schedule":
        schedule = optim.schedule
        monkeypatch.setattr(optim, "schedule", lambda kind, at, *rest: schedule(kind, at - step, *rest))


PIECES = ["model", "optimizer", "optimizer_steps", "schedule", "rng", "step", "best"]


@pytest.mark.parametrize(("piece", "best"), [("nothing", False), ("nothing", True), *((p, p == "best") for p in PIECES)])
def test_leaving_anything_out_of_a_checkpoint_shows(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: str, best: bool
) -> None:
    """Negative controls: the comparison above would notice a resume that forgets a piece, and only then."""
    figures = {5: 0.9, 10: 0.5, 15: 0.6}  # the first validation is the best, and it is before the checkpoint
    monkeypatch.setattr(Trainer, "_validate", lambda run: {"loss": 0.5, "macro_f1": 0.5, "accuracy": figures[run.state.step]})
    settings = {"num_train_epochs": 3, "learning_rate": 2e-2, "load_best_model_at_end": best}
    _, weights = train(tiny_bert, **settings)
    run = trainer(tiny_bert, **settings)
    for _ in range(7):
        if run._validation_due():
            run._validate_or_stop()
        run._train_step()
    fresh = trainer(tiny_bert, **settings).checkpoint()
    Checkpoints(tmp_path).save(without(piece, run.checkpoint(), fresh))
    begin_anew(piece, 7, monkeypatch)
    resumed = trainer(tiny_bert, Checkpoints(tmp_path), **settings)
    resumed.run()
    assert same(resumed.classifier.model.state_dict(), weights) == (piece == "nothing")


def test_a_damaged_checkpoint_is_passed_over(tiny_bert: Path, tmp_path: Path) -> None:
    _, weights = train(tiny_bert)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Preempted):
        train(tiny_bert, checkpoints, StopAfter(7), save_steps=2)
    newest = checkpoints.found()[-1] / "tensors.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    assert len(checkpoints.latest()[1]) == 1
    _, resumed = train(tiny_bert, checkpoints)
    assert same(resumed, weights)


def test_twenty_runs_give_the_same_bytes(tiny_bert: Path) -> None:
    runs = [train(tiny_bert, num_train_epochs=1)[1] for _ in range(20)]
    assert all(same(run, runs[0]) for run in runs)


def test_another_seed_gives_another_model(tiny_bert: Path) -> None:
    assert not same(train(tiny_bert, num_train_epochs=1)[1], train(tiny_bert, num_train_epochs=1, seed=1)[1])


def test_validation_does_not_change_the_training(tiny_bert: Path) -> None:
    last = {"load_best_model_at_end": False}
    assert same(train(tiny_bert, **last)[1], train(tiny_bert, eval_strategy="steps", eval_steps=1, **last)[1])


def test_evaluation_every_n_steps(tiny_bert: Path) -> None:
    outcome, _ = train(tiny_bert, eval_strategy="steps", eval_steps=4)
    assert [entry["step"] for entry in outcome.validation] == [4, 8, 10]


def test_the_best_weights_are_published_or_the_last(tiny_bert: Path) -> None:
    settings = {"num_train_epochs": 4, "learning_rate": 5e-2, "metric_for_best_model": "loss"}
    best, weights = train(tiny_bert, **settings)
    losses = [entry["loss"] for entry in best.validation]
    assert best.best["loss"] == min(losses)
    last, others = train(tiny_bert, load_best_model_at_end=False, **settings)
    assert last.best["step"] == last.steps
    assert same(weights, others) == (losses[-1] == min(losses))


FIGURES = {  # of five validations: each stands still after another one
    "loss": [0.9, 0.5, 0.6, 0.5, 0.4],
    "accuracy": [0.5, 0.6, 0.7, 0.7, 0.6],
    "macro_f1": [0.9, 0.8, 0.9, 0.7, 0.95],
}


@pytest.mark.parametrize(("metric", "best", "last"), [("loss", 2, 4), ("accuracy", 3, 5), ("macro_f1", 1, 3)])
def test_early_stopping(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, metric: str, best: int, last: int) -> None:
    run = trainer(tiny_bert, num_train_epochs=9, early_stopping_patience=2, metric_for_best_model=metric)
    figures = ({name: values[i] for name, values in FIGURES.items()} for i in range(5))
    monkeypatch.setattr(run, "_validate", lambda: next(figures))
    outcome = run.run()
    assert outcome.stopped_early
    assert (outcome.best["epoch"], outcome.validation[-1]["epoch"]) == (best, last)
    assert outcome.steps == last * 5 < outcome.total_steps


def test_early_stopping_on_what_was_learned(tiny_bert: Path) -> None:
    outcome, _ = train(tiny_bert, **{**STOPPING, "num_train_epochs": 30})
    assert outcome.stopped_early
    assert outcome.steps < outcome.total_steps
    losses = [entry["loss"] for entry in outcome.validation]
    assert min(losses) == losses[-3]


def named_rows(error: BaseException) -> list[int]:
    return [int(row) for row in str(error).split("row_id ")[1].split(")")[0].split(", ")]


def test_nan_is_a_named_error_with_its_rows(tiny_bert: Path) -> None:
    run = trainer(tiny_bert)
    with torch.no_grad():
        run.named["bert.embeddings.word_embeddings.weight"][51] = float("nan")  # every positive row reads word 51
    step = run._step_index()
    bad = TRAIN.row_ids[step[TRAIN.labels[step] == 1]]
    with pytest.raises(NonFiniteLossError, match="loss of optimizer step 1 is nan") as caught:
        run._train_step()
    assert named_rows(caught.value) == sorted(bad.tolist())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_a_validation_is_a_named_error_with_its_rows(tiny_bert: Path, value: float) -> None:
    """A word that only two validation rows have: training never sees it."""
    ids = np.concatenate([VALIDATION.store.sequence(i) for i in range(16)])
    at = np.concatenate([[0], np.cumsum(VALIDATION.lengths)])
    ids[[at[3] + 1, at[11] + 1]] = 88
    data = replace(VALIDATION, store=TokenStore.from_arrays(ids, at))
    ours = recipe()
    run = Trainer(classifier(tiny_bert, ours), TRAIN, data, ours, None, StopRequest())
    with torch.no_grad():
        run.named["bert.embeddings.word_embeddings.weight"][88] = value
    with pytest.raises(NonFiniteLossError, match="loss of the validation after optimizer step 5 is nan") as caught:
        run.run()
    assert named_rows(caught.value) == [1003, 1011]
    assert run.best is None


def test_fp16_whose_gradient_stays_infinite_is_an_error(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lower loss scale does not help: 2**16 is below 1 after 17 steps, and the 20th says so."""
    run = trainer(tiny_bert, precision="fp16", num_train_epochs=9)
    gradients = run._gradients

    def overflowing(index: Any) -> float:
        loss = gradients(index)
        next(iter(run.named.values())).grad[0, 0] = float("inf")  # type: ignore[index]
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(run, "_gradients", overflowing)
        for _ in range(19):
            run._train_step()
        with pytest.raises(NonFiniteLossError, match=r"step 20, as of the 19 before, with a loss scale of 0\.125, is inf"):
            run._train_step()
    fresh = trainer(tiny_bert, precision="fp16", num_train_epochs=9)
    fresh.state.skipped = 19
    fresh._train_step()
    assert fresh.state.skipped == 0


def test_figures_read_later_are_the_same_and_name_their_step(tiny_bert: Path, tmp_path: Path) -> None:
    """As on a GPU, which is not waited for each step: the same bytes and curve, and an error before anything is saved."""
    expected, weights = train(tiny_bert)
    run = trainer(tiny_bert)
    run.read_every = 4
    assert run.run() == expected
    assert same(run.classifier.model.state_dict(), weights)
    run = trainer(tiny_bert, Checkpoints(tmp_path))
    run.read_every = 4
    run._train_step()
    with torch.no_grad():
        run.named["classifier.bias"][0] = float("nan")
    run._train_step()
    run._train_step()
    with pytest.raises(NonFiniteLossError, match="loss of optimizer step 2 is nan"):
        run.save()
    assert Checkpoints(tmp_path).found() == []


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler's own
@pytest.mark.parametrize(("compiler", "dropout"), [(None, 0.1), ("eager", 0.0), ("eager", 0.1)])
def test_fixed_shapes_and_a_compiler_change_no_figure(tiny_bert: Path, compiler: str | None, dropout: float) -> None:
    """Dummies at the end of each micro-batch enter neither loss nor gradient; their masks come behind those of the rows."""
    settings = {"tokens_per_batch": 64, "hidden_dropout_prob": dropout}
    plain, fixed = trainer(tiny_bert, **settings), trainer(tiny_bert, **settings)
    fixed.classifier = PackedClassifier(fixed.model, torch.float32, fused=compiler is None, compiler=compiler)
    fixed.shapes = Shapes.within(64, 24)
    for _ in range(4):
        assert plain._train_step()[1] == pytest.approx(fixed._train_step()[1], abs=1e-6)
    for name in plain.named:
        assert torch.allclose(plain.named[name], fixed.named[name], atol=2e-5), name


def test_a_compiler_is_asked_for_on_a_gpu_alone(tiny_bert: Path) -> None:
    ready = classification.runner(classifier(tiny_bert, recipe()).model, torch.float32, torch_compile=True)
    assert not ready.compiled  # this is a CPU
    assert trainer(tiny_bert).shapes is None


def test_an_infinite_gradient_is_an_error(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagobert.optim.gradient_norm", lambda parameters: torch.tensor(float("inf")))
    with pytest.raises(NonFiniteLossError, match="gradient of optimizer step 1 is inf"):
        trainer(tiny_bert)._train_step()


class LittleMemory:
    """A classifier's `logits` that fails with more than so many tokens at once, or, once, at its nth call."""

    def __init__(self, classifier: Any, tokens: int = 1_000_000, fails_at: int = 0) -> None:
        self.logits, self.tokens, self.left = classifier.logits, tokens, fails_at

    def __call__(self, batch: Any, dropout: Any = None) -> Tensor:
        self.left -= 1
        if sum(batch.lengths) > self.tokens or self.left == 0:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
        logits: Tensor = self.logits(batch, dropout)
        return logits


def test_out_of_memory_lowers_the_budget_and_repeats_the_step(
    way: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    model, changes = request.getfixturevalue(way[0]), way[1]
    small, run = trainer(model, **changes), trainer(model, **changes)
    monkeypatch.setattr(run.classifier, "logits", LittleMemory(run.classifier, tokens=60))
    for _ in range(3):
        assert run._train_step()[1] == pytest.approx(small._train_step()[1], abs=1e-6)
    assert run.state.budget <= 64
    monkeypatch.setattr(
        run.classifier, "logits", lambda *_: torch.zeros(1) @ torch.zeros(2)
    )  # another error is not taken for it
    with pytest.raises(RuntimeError, match="size"):
        run._train_step()


def test_gradients_of_the_pieces_before_the_failure_are_discarded(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory ran out in the last of several pieces, whose first ones had already added their gradients."""
    small, run = (trainer(tiny_bert, tokens_per_batch=30) for _ in range(2))
    index = run._step_index()
    pieces = len(cut(index, run.lengths, 30))
    assert pieces > 2
    monkeypatch.setattr(run.classifier, "logits", LittleMemory(run.classifier, fails_at=pieces))
    assert float(run._gradients_within_memory(index)[0]) == pytest.approx(
        float(small._gradients_within_memory(index)[0]), abs=1e-6
    )
    assert run.state.budget < 30
    for name, p in run.named.items():
        wanted = small.named[name].grad
        assert p.grad is not None
        assert wanted is not None
        assert torch.allclose(p.grad, wanted, atol=1e-6), name


def test_out_of_memory_in_a_validation_lowers_what_it_computes_at_once(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plenty, run = trainer(tiny_bert), trainer(tiny_bert)
    little = LittleMemory(run.classifier, tokens=60)
    monkeypatch.setattr(run.classifier, "logits", little)
    assert run._validate() == pytest.approx(plenty._validate(), abs=1e-6)
    assert run.state.budget == plenty.state.budget
    little.tokens = 2
    with pytest.raises(TrainingError, match=r"one sequence of 2\d tokens"):
        run._validate()


def test_out_of_memory_with_one_sequence_is_an_error(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(tiny_bert)

    def never(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(run.classifier, "logits", never)
    with pytest.raises(TrainingError, match="one sequence of"):
        run._train_step()


def test_class_weights_and_balanced_sampling(tiny_bert: Path) -> None:
    rare = np.flatnonzero(TRAIN.labels == 1)[:4]
    index = np.sort(np.concatenate([np.flatnonzero(TRAIN.labels == 0), rare]))
    data = Examples(TRAIN.store, index, np.arange(len(index)), TRAIN.row_ids[index], TRAIN.labels[index])
    n = len(index)
    weighted = trainer(tiny_bert, data=data, class_weights="balanced")
    assert weighted.class_weights is not None
    assert weighted.class_weights.tolist() == pytest.approx([n / (2 * (n - 4)), n / 8])
    assert trainer(tiny_bert, data=data, class_weights=(1.0, 3.0)).class_weights.tolist() == [1.0, 3.0]  # type: ignore[union-attr]
    with pytest.raises(TrainingError, match="has 3 numbers, but there are 2 classes"):
        trainer(tiny_bert, data=data, class_weights=(1.0, 3.0, 1.0))
    drawn = np.concatenate([s for e in range(20) for s in trainer(tiny_bert, data=data, train_sampling="balanced")._steps(e)])
    assert 0.4 < data.labels[drawn].mean() < 0.6


QUIET = {"hidden_dropout_prob": 0.0, "classifier_dropout": 0.0}


@pytest.mark.parametrize(
    ("changes", "torch_s"),
    [
        ({"label_smoothing_factor": 0.2}, {"label_smoothing": 0.2}),
        ({"class_weights": (1.0, 3.0)}, {"weight": torch.tensor([1.0, 3.0])}),
        (
            {"class_weights": (0.2, 1.0), "label_smoothing_factor": 0.1},
            {"weight": torch.tensor([0.2, 1.0]), "label_smoothing": 0.1},
        ),
    ],
)
@pytest.mark.parametrize("budget", [30, 1000])
def test_the_options_of_the_loss_reach_the_step(
    tiny_bert: Path, changes: dict[str, Any], torch_s: dict[str, Any], budget: int
) -> None:
    """Loss and gradient of a step are those of torch's own loss, whole or cut into pieces."""
    run = trainer(tiny_bert, **QUIET, **changes, tokens_per_batch=budget)
    index = np.concatenate([np.flatnonzero(TRAIN.labels == 0)[:6], np.flatnonzero(TRAIN.labels == 1)[:2]])
    with torch.no_grad():
        run.named["classifier.bias"].copy_(torch.tensor([1.0, -0.5]))  # undecided as it starts, smoothing changes nothing
        logits = run.classifier.logits(pack(TRAIN.store, TRAIN.sequences[index]))
    target = torch.from_numpy(TRAIN.labels[index])
    plain = F.cross_entropy(logits, target)
    expected = F.cross_entropy(logits.requires_grad_(), target, **torch_s)
    expected.backward()
    assert float(run._gradients_within_memory(index)[0]) == pytest.approx(float(expected.detach()), abs=1e-6)
    bias = run.named["classifier.bias"].grad
    assert logits.grad is not None
    assert bias is not None
    assert torch.allclose(bias, logits.grad.sum(0), atol=1e-6)
    assert abs(float(plain - expected.detach())) > 1e-3


def test_balanced_sampling_reaches_the_steps(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rare = np.flatnonzero(TRAIN.labels == 1)[:4]
    index = np.sort(np.concatenate([np.flatnonzero(TRAIN.labels == 0), rare]))
    data = Examples(TRAIN.store, index, np.arange(len(index)), TRAIN.row_ids[index], TRAIN.labels[index])
    share = {}
    for sampling in ("uniform", "balanced"):
        run = trainer(tiny_bert, data=data, train_sampling=sampling, num_train_epochs=8)
        seen: list[Any] = []
        gradients = run._gradients
        monkeypatch.setattr(run, "_gradients", lambda index, seen=seen, of=gradients: (seen.append(index), of(index))[1])
        run.run()
        rows = np.concatenate(seen)
        assert len(rows) == 8 * len(index)
        share[sampling] = data.labels[rows].mean()
    assert share["uniform"] == pytest.approx(4 / len(index))
    assert 0.4 < share["balanced"] < 0.6


WIRED: dict[str, tuple[dict[str, Any], Callable[[Any, Any], bool]]] = {
    "hidden_dropout_prob": ({"hidden_dropout_prob": 0.3}, lambda it, _: it.model.config.hidden_dropout_prob == 0.3),
    "attention_probs_dropout_prob": (
        {"attention_probs_dropout_prob": 0.3},
        lambda it, _: it.model.config.attention_probs_dropout_prob == 0.3,
    ),
    "classifier_dropout": ({"classifier_dropout": 0.3}, lambda it, _: it.model.config.classifier_dropout == 0.3),
    "seed": ({"seed": 5}, lambda it, plain: not torch.equal(it.model.classifier.weight, plain.model.classifier.weight)),
    "reinit_layers": (
        {"reinit_layers": 1},
        lambda it, plain: (
            [
                torch.equal(one.output.dense.weight, other.output.dense.weight)
                for one, other in zip(it.model.bert.encoder.layer, plain.model.bert.encoder.layer, strict=True)
            ]
            == [True, False]
        ),
    ),
    "freeze": ({"freeze": 1}, lambda it, _: not it.model.bert.encoder.layer[0].output.dense.weight.requires_grad),
    "lora_r": ({"lora_r": 4}, lambda it, _: any(p.shape[0] == 4 for n, p in it.model.named_parameters() if "lora_A" in n)),
    "lora_alpha": (
        {"lora_r": 4, "lora_alpha": 12},
        lambda it, _: it.model.bert.encoder.layer[0].output.dense.scaling == {"default": 3.0},
    ),
    "gradient_checkpointing": ({"gradient_checkpointing": True}, lambda it, _: it.encoder.gradient_checkpointing),
    "precision": ({"precision": "bf16"}, lambda it, _: it.dtype == torch.bfloat16),
}


@pytest.mark.parametrize("option", WIRED)
def test_every_option_of_the_model_reaches_it(tiny_bert: Path, option: str) -> None:
    changes, holds = WIRED[option]
    if "lora" in option:
        pytest.importorskip("peft")
    base = recipe(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.0, classifier_dropout=0.1)
    plain = prepare(tiny_bert, LABELS, base, torch.device("cpu"))
    assert "lora" in option or not holds(plain, plain)
    assert holds(prepare(tiny_bert, LABELS, base.model_copy(update=changes), torch.device("cpu")), plain)


def test_a_step_by_tokens(tiny_bert: Path) -> None:
    run = trainer(tiny_bert, train_batch_tokens=100)
    assert all(TRAIN.lengths[step].sum() <= 100 for step in run._steps(0))


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_checkpointing": True},
        {"attention_probs_dropout_prob": 0.1},
        {"label_smoothing_factor": 0.1},
        {"freeze": "encoder"},
        {"lr_scheduler_type": "cosine", "layer_wise_lr_decay": 0.8},
    ],
)
def test_every_option_trains(tiny_bert: Path, changes: dict[str, Any]) -> None:
    outcome, weights = train(tiny_bert, num_train_epochs=1, **changes)
    assert np.isfinite([loss for _, loss in outcome.curve]).all()
    start = classifier(tiny_bert, recipe(**changes)).model.state_dict()
    frozen = changes.get("freeze") == "encoder"
    name = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(weights[name], start[name]) == frozen


def test_everything_frozen_is_an_error(tiny_bert: Path) -> None:
    ours = recipe()
    ready = classifier(tiny_bert, ours)
    ready.model.requires_grad_(False)
    with pytest.raises(TrainingError, match="nothing is left to train"):
        fine_tune(ready, TRAIN, VALIDATION, ours)


def test_lora_trains_adapters_and_merges_them(tiny_bert: Path) -> None:
    pytest.importorskip("peft")
    ours = recipe(learning_rate=1e-2, num_train_epochs=1, lora_r=4, lora_alpha=8)
    before = classifier(tiny_bert, recipe()).model.state_dict()
    ready = classifier(tiny_bert, ours)
    model: Any = ready.model
    run = Trainer(ready, TRAIN, VALIDATION, ours, None, StopRequest())
    assert {name.split(".")[-1] if "lora_" not in name else "lora" for name in run.named} == {"lora", "weight", "bias"}
    assert not any(name.startswith("bert.encoder") and "lora_" not in name for name in run.named)
    run.run()
    adapted = run._validate()
    lora.merge(model)
    assert model.state_dict().keys() == before.keys()
    name = "bert.encoder.layer.1.output.dense.weight"
    assert not torch.equal(model.state_dict()[name], before[name])
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(model.state_dict()[name], before[name])
    merged = Trainer(classification.runner(model, torch.float32), TRAIN, VALIDATION, ours, None, StopRequest())._validate()
    assert merged["loss"] == pytest.approx(adapted["loss"], abs=1e-5)


def test_a_signal_asks_to_stop_and_the_second_interrupt_interrupts() -> None:
    with StopRequest().listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is not None


def test_two_processes_have_the_loss_curve_of_one(tiny_bert: Path, tmp_path: Path) -> None:
    train_in_processes.both(tiny_bert, tmp_path / "one")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", train_in_processes.__name__, str(tiny_bert), str(tmp_path / "two")]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    curves = [np.loadtxt(tmp_path / name / "curve.txt") for name in ("one", "two", "two-resumed")]
    assert curves[0].shape == (10,)
    assert np.abs(curves[0] - curves[1]).max() < 1e-6
    assert np.array_equal(curves[1], curves[2])
    names = ("two", "two-resumed", "two-validating")
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in names]
    assert weights[0] == weights[1] == weights[2]
    said = [(tmp_path / "two-validating" / f"stopped-{rank}.txt").read_text() for rank in (0, 1)]
    assert "stopped on the request of another process after step 5 of 10" in said[0]
    assert "stopped on SIGTERM after step 5 of 10" in said[1]
    said = [(tmp_path / f"two-nan-{rank}.txt").read_text() for rank in (0, 1)]
    row = (tmp_path / "two-nan.txt").read_text()  # the second process had it; the first, which speaks, names it too
    assert said == [f"the loss of optimizer step 1 is nan (row_id {row}). Nothing was published. Lower "] * 2
