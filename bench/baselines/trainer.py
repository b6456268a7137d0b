"""Hugging Face `Trainer` at its best here: dynamic padding, batches of similar length, bf16, fused AdamW, nothing logged."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from bench import workload
from bench.workload import Workload


class Rows(Dataset[dict[str, Any]]):
    """Sequences as the data collator takes them."""

    def __init__(self, work: Workload) -> None:
        self.work = work

    def __len__(self) -> int:
        """Sequences."""
        return len(self.work.sequences)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """One sequence."""
        ids = self.work.sequences[i].tolist()
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": int(self.work.labels[i]), "length": len(ids)}


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


def pad(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """What `DataCollatorWithPadding` does, without a tokenizer: pad to the longest, rounded up to 8."""
    longest = -(-max(len(row["input_ids"]) for row in rows) // 8) * 8
    out = {name: torch.zeros(len(rows), longest, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    for i, row in enumerate(rows):
        for name, tensor in out.items():
            tensor[i, : len(row[name])] = torch.tensor(row[name])
    return out | {"labels": torch.tensor([row["labels"] for row in rows])}


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
        "dataloader_pin_memory": False,
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
