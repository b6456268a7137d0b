from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from dagobert import scoring
from dagobert.errors import ModelError
from dagobert.heads import classification
from dagobert.scoring import Scorer
from tests.unit.training_examples import LABELS, examples


@pytest.fixture(scope="module")
def model_dir(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    model: Any = classification.load(tiny_bert, LABELS, seed=1)
    with classification.quiet():
        model.save_pretrained(path)
    return path


class Bar:
    done = 0

    def update(self, n: int = 1) -> None:
        self.done += n


def test_logits_are_those_of_transformers_in_the_order_asked_for(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "WINDOW", 10)  # several windows
    data = examples(33)
    scorer, bar = Scorer.load(model_dir, device="cpu", precision="fp32", tokens=100), Bar()
    index = np.random.default_rng(0).permutation(33)
    found = scorer.logits(data.store, index, progress=bar)
    assert bar.done == 33
    plain: Any = AutoModelForSequenceClassification.from_pretrained(model_dir).eval()
    for row, i in zip(found, index, strict=True):
        ids = torch.from_numpy(data.store.sequence(int(i)).astype(np.int64))[None]
        with torch.no_grad():
            expected = plain(input_ids=ids).logits[0].numpy()
        assert np.abs(row - expected).max() < 1e-5
    assert np.abs(scorer.logits(data.store)[index] - found).max() < 1e-5


def test_shapes_are_few_on_a_cpu(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new one leaves kernels behind, so that the memory of a long file would grow."""
    shapes: list[tuple[int, int]] = []
    scorer = Scorer.load(model_dir, device="cpu", precision="fp32", tokens=150)
    of = scorer.classifier.logits

    def watched(batch: Any, dropout: Any = None) -> Any:
        shapes.append((len(batch.input_ids) % 64, len(batch.spans) % 64))
        return of(batch, dropout)

    monkeypatch.setattr(scorer.classifier, "logits", watched)
    scorer.logits(examples(60).store)
    assert len(shapes) > 3
    assert set(shapes) == {(0, 0)}


def test_nothing_to_score(model_dir: Path) -> None:
    assert Scorer.load(model_dir, device="cpu").logits(examples(3).store, np.zeros(0, np.int64)).shape == (0, 2)


def test_a_sequence_longer_than_the_budget_is_scored_alone(model_dir: Path) -> None:
    scorer = Scorer.load(model_dir, device="cpu", precision="fp32", tokens=4)
    assert np.isfinite(scorer.logits(examples(5).store)).all()


def test_directories_that_are_no_model(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json: no such file"):
        Scorer.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="names no classes"):
        Scorer.load(tmp_path)
    config = json.loads((model_dir / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"holds no model\.safetensors"):
        Scorer.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((model_dir / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(ModelError, match="weights cannot be loaded"):
        Scorer.load(tmp_path)
