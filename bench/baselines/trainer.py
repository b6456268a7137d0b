"""Hugging Face `Trainer` at its best here: dynamic padding, batches of similar length, bf16, fused AdamW, nothing logged.

It needs `accelerate`: without it this module cannot be imported, or making `TrainingArguments` raises ImportError.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from bench import workload
from bench.baselines.padded import Rows, pad
from bench.workload import Workload
from dagobert import determinism


class Stopwatch(TrainerCallback):
    """Time from the first step's begin to the last step's end, without set-up."""

    begin = end = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Note the first."""
        self.begin = self.begin or workload.clock()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the last."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.end = workload.clock()


def trainer(model: nn.Module, work: Workload, device: torch.device, out: Path, **changes: Any) -> Trainer:
    """The trainer, ready to run; `changes` are training arguments."""
    settings: dict[str, Any] = {
        "output_dir": str(out),
        "per_device_train_batch_size": 16,
        "num_train_epochs": 1,
        "learning_rate": 1e-4,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch_fused",
        "bf16": True,
        "use_cpu": device.type == "cpu",
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "length",
        "remove_unused_columns": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": device.type == "cuda",
        # on a GPU the batches are made beside it, or it would wait for them
        "dataloader_num_workers": min(8, determinism.available_cores()) if device.type == "cuda" else 0,
    }
    arguments = TrainingArguments(**(settings | changes))
    return Trainer(model=model, args=arguments, train_dataset=Rows(work), data_collator=pad)


def train(model: nn.Module, work: Workload, device: torch.device, *, batch_size: int) -> float:
    """Seconds of one epoch."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as out:
        run = trainer(model, work, device, Path(out), per_device_train_batch_size=batch_size)
        run.add_callback(watch)
        run.train()
    return watch.end - watch.begin
