from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dagobert.checkpoints import Checkpoints
from dagobert.errors import NonFiniteLossError, Preempted
from dagobert.training import Outcome, StopRequest, Trainer, fine_tune
from tests.unit.training_examples import classifier, examples, recipe


def train(tiny_bert: Path, **changes: object) -> tuple[Outcome, dict[str, torch.Tensor]]:
    ours = recipe(**changes)
    ready = classifier(tiny_bert, ours)
    outcome = fine_tune(ready, examples(), examples(32, seed=1), ours)
    return outcome, ready.model.state_dict()


def test_it_learns(tiny_bert: Path) -> None:
    outcome, _ = train(tiny_bert, num_train_epochs=20, learning_rate=5e-3)
    assert outcome.validation[-1]["accuracy"] >= 0.9
    assert outcome.steps == 20 * 6
