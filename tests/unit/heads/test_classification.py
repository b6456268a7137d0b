from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

from dagobert.batches import pack
from dagobert.errors import ModelError
from dagobert.heads import classification
from dagobert.labels import LabelMap
from dagobert.scoring import Scorer
from dagobert.shards import TokenStore
from dagobert.training import StopRequest, Trainer
from tests.unit.training_examples import LABELS, examples, recipe


def test_labels_and_dropouts_reach_the_configuration(tiny_bert: Path) -> None:
    model: Any = classification.load(tiny_bert, LABELS, hidden_dropout=0.2, attention_dropout=0.0, head_dropout=0.3)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.config.problem_type == "single_label_classification"
    c = model.config
    assert (c.hidden_dropout_prob, c.attention_probs_dropout_prob, c.classifier_dropout) == (0.2, 0.0, 0.3)


def test_the_head_is_drawn_from_the_seed(tiny_bert: Path) -> None:
    one, same, other = (classification.load(tiny_bert, LABELS, seed=s).get_parameter("classifier.weight") for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_weights_come_back_unchanged(tiny_bert: Path, tmp_path: Path) -> None:
    model: Any = classification.load(tiny_bert, LABELS)
    classification.runner(model, torch.float32).logits(pack(examples(3).store, [0, 1, 2]))
    with classification.quiet():
        model.save_pretrained(tmp_path)
    before, after = load_file(tiny_bert / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(after[f"bert.{name}"], value) for name, value in before.items())
    assert isinstance(AutoModelForSequenceClassification.from_pretrained(tmp_path), BertForSequenceClassification)


OTHERS = {
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=90, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64)
    ),
    "roberta": lambda: RobertaModel(
        RobertaConfig(vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                      max_position_embeddings=66, pad_token_id=1, type_vocab_size=1)
    ),
    "electra": lambda: ElectraModel(
        ElectraConfig(vocab_size=90, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                      intermediate_size=64, max_position_embeddings=64)
    ),
    "modernbert": lambda: ModernBertModel(
        ModernBertConfig(vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                         max_position_embeddings=64, pad_token_id=0, bos_token_id=2, cls_token_id=2, eos_token_id=3,
                         sep_token_id=3)
    ),
    "deberta-v2": lambda: DebertaV2Model(
        DebertaV2Config(vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                        max_position_embeddings=64)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_other_encoders_run_behind_the_same_interface(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder: Any = OTHERS[name]()
    with classification.quiet():
        encoder.save_pretrained(tmp_path)
    model = classification.load(tmp_path, LABELS, hidden_dropout=0.2, attention_dropout=0.0, head_dropout=0.1)
    runner = classification.runner(model, torch.float32)
    assert runner.padded == (name not in classification.PACKED)
    data, stock = examples(12), model.eval()
    found = Scorer(runner, torch.device("cpu"), 2, 60).logits(data.store)
    for i in range(12):
        ids = torch.from_numpy(data.store.sequence(i).astype(np.int64))[None]
        with torch.no_grad():
            expected = stock(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        assert np.abs(found[i] - expected.numpy()).max() < 1e-5
    losses = []
    for budget in (1000, 1000, 40):  # the same twice, and cut into other micro-batches, which are padded otherwise
        loaded = classification.load(tmp_path, LABELS, hidden_dropout=0.2, attention_dropout=0.2, head_dropout=0.2)
        changes = recipe(num_train_epochs=1, tokens_per_batch=budget)
        run = Trainer(classification.runner(loaded, torch.float32), data, data, changes, None, StopRequest())
        losses.append([loss for _, loss in run.run().curve])
    assert losses[0] == losses[1]
    assert losses[0] == pytest.approx(losses[2], abs=1e-5)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["electra", "roberta"])
def test_packed_kin_of_bert_has_the_logits_and_every_gradient_of_transformers(name: str, fused: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder: Any = OTHERS[name]()
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(torch.randn_like(p) * 0.05)  # biases and LayerNorm start at 0 and 1, which would hide mistakes
    with classification.quiet():
        encoder.save_pretrained(tmp_path)
    stock: Any = classification.load(tmp_path, LABELS).eval()
    # RoBERTa's padding id, 1, also inside a sequence; the second segment of a pair, which only ELECTRA has
    pieces = [[2, 60, 1, 61, 1, 3], [2], [2, 70, 71, 72, 3, 73, 3], [2, *range(50, 90), 3]]
    offsets, second = np.cumsum([0, *map(len, pieces)]), np.array([6, 1, 5, 20])
    store = TokenStore.from_arrays(np.concatenate(pieces).astype(np.uint16), offsets, second=second)

    def gradients(logits: torch.Tensor) -> dict[str, torch.Tensor]:
        stock.zero_grad()
        torch.manual_seed(1)
        (logits * torch.randn(logits.shape)).sum().backward()
        return {n: p.grad.clone() for n, p in stock.named_parameters() if p.grad is not None}

    rows = []
    for ids, first in zip(pieces, second.tolist(), strict=True):
        types = torch.tensor([[0] * first + [1] * (len(ids) - first)]) * (name == "electra")
        one = torch.tensor([ids])
        rows.append(stock(input_ids=one, attention_mask=torch.ones_like(one), token_type_ids=types).logits)
    expected = torch.cat(rows)
    wanted = gradients(expected)
    got = classification.PackedClassifier(stock, torch.float32, fused=fused).logits(pack(store, range(4)))
    found = gradients(got)
    assert (got - expected).abs().max() < 1e-5
    assert found.keys() == wanted.keys()
    for parameter in wanted:
        scale = max(1.0, float(wanted[parameter].abs().max()))
        assert (found[parameter] - wanted[parameter]).abs().max() < 1e-5 * scale, parameter


def test_checkpoints_that_cannot_be_used(tiny_bert: Path, tmp_path: Path) -> None:
    def changed(**values: Any) -> Path:
        path = tmp_path / "-".join(values)
        shutil.copytree(tiny_bert, path, dirs_exist_ok=True)
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | values))
        return path

    with pytest.raises(ModelError, match="'gpt2' model, no encoder of the BERT family"):
        classification.load(changed(model_type="gpt2"), LABELS)
    with pytest.raises(ModelError, match="cannot be read as a configuration"):
        classification.load(changed(model_type="nothing-known"), LABELS)
    with pytest.raises(ModelError, match="weights of the encoder are missing or of another shape"):
        classification.load(changed(hidden_size=64), LABELS)
    with pytest.raises(ModelError, match="weights of the encoder are missing"):
        classification.load(changed(num_hidden_layers=3), LABELS)
    lacking = changed(use_cache=True)
    weights = load_file(lacking / "model.safetensors")
    weights.pop("encoder.layer.0.output.dense.weight")
    save_file(weights, lacking / "model.safetensors")
    with pytest.raises(ModelError, match=r"1 weights of the encoder are missing.*layer\.0\.output\.dense\.weight"):
        classification.load(lacking, LABELS)


def test_losses_are_those_of_torch() -> None:
    logits, ids = torch.randn(6, 3), np.array([0, 1, 2, 2, 1, 0])
    weights = torch.tensor([1.0, 2.0, 0.5])
    target = classification.targets(ids, torch.device("cpu"))
    each = classification.losses(logits, target, class_weights=weights, smoothing=0.1)
    mean = each.sum() / classification.loss_weights(target, weights).sum()
    assert torch.allclose(mean, F.cross_entropy(logits, target, weight=weights, label_smoothing=0.1))
    marks = classification.targets(np.array([[1, 0, 1], [0, 0, 0]], dtype=np.float32), torch.device("cpu"))
    several = classification.losses(logits[:2], marks, class_weights=None, smoothing=0.0)
    assert torch.allclose(several.mean(), F.binary_cross_entropy_with_logits(logits[:2], marks))
    assert classification.loss_weights(marks, None).tolist() == [1.0, 1.0]


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert classification.balanced_weights(labels, 3) == pytest.approx(expected)
    # class 0: 1 row with, 3 without; class 1: 2 and 2; class 2: none, which weighs 1
    marks = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=np.float32)
    assert classification.balanced_weights(marks, 3).tolist() == [3.0, 1.0, 1.0]


def test_validation_figures() -> None:
    logits = np.log(np.array([[0.8, 0.2], [0.4, 0.6], [0.3, 0.7]], dtype=np.float32))
    found = classification.scores(logits, np.array([0, 1, 0]))
    # right, right, wrong; F1 of class 0: 2·1/(2·1+0+1) = 2/3, of class 1: 2·1/(2·1+1+0) = 2/3
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx(-(np.log(0.8) + np.log(0.6) + np.log(0.3)) / 3, rel=1e-6)
    several = classification.scores(np.array([[5.0, -5.0], [5.0, 5.0]], np.float32), np.array([[1, 0], [1, 0]], np.float32))
    # the first row is right as a whole, the second is not; F1 of class 0 is 1, of class 1 is 0
    assert several["accuracy"] == 0.5
    assert several["macro_f1"] == 0.5


def test_several_classes_a_row_are_learned(tiny_bert: Path) -> None:
    labels = LabelMap("multi_label_classification", ("a", "b"), ("a", "b"))
    data = examples(24)
    marks = np.stack([data.labels == 0, data.labels == 1], axis=1).astype(np.float32)
    data = type(data)(data.store, data.sequences, data.document, data.row_ids, marks)
    runner = classification.runner(classification.load(tiny_bert, labels), torch.float32)
    outcome = Trainer(runner, data, data, recipe(num_train_epochs=2), None, StopRequest()).run()
    assert outcome.curve[-1][1] < outcome.curve[0][1]
