"""What a padded baseline reads: rows of a workload, and batches padded to their longest."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

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


def pad(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """What `DataCollatorWithPadding` does, without a tokenizer: pad to the longest, rounded up to 8."""
    longest = -(-max(len(row["input_ids"]) for row in rows) // 8) * 8
    out = {name: torch.zeros(len(rows), longest, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    for i, row in enumerate(rows):
        for name, tensor in out.items():
            tensor[i, : len(row[name])] = torch.tensor(row[name])
    return out | {"labels": torch.tensor([row["labels"] for row in rows])}


def score(model: nn.Module, work: Workload, device: torch.device) -> float:
    """Seconds of what stands in for a pipeline where there are no texts: batches of 32 in the given order, padded, fp32."""
    stock: Any = model.to(device).eval()
    rows = Rows(work)
    started = workload.clock()
    with torch.no_grad():
        for at in range(0, len(rows), 32):
            batch = pad([rows[i] for i in range(at, min(at + 32, len(rows)))])
            stock(batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device)).logits.cpu()
    return workload.clock() - started
