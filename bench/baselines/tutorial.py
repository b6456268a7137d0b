"""The loop most people copy: fp32, batches of 16 padded to 512, AdamW, linear schedule, clip 1.0, everything in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import get_linear_schedule_with_warmup

from bench import workload
from bench.workload import Workload


def train(model: nn.Module, work: Workload, device: torch.device, *, batch_size: int, learning_rate: float = 1e-4) -> float:
    """Seconds of one epoch."""
    ids = torch.zeros(len(work.sequences), 512, dtype=torch.int64)
    for row, sequence in enumerate(work.sequences):
        ids[row, : len(sequence)] = torch.from_numpy(sequence)
    mask, labels = (ids != 0).long(), torch.from_numpy(work.labels)
    stock: Any = model.to(device).train()
    optimizer = torch.optim.AdamW(stock.parameters(), lr=learning_rate)
    schedule: Any = get_linear_schedule_with_warmup
    scheduler = schedule(optimizer, 0, -(-len(ids) // batch_size))
    started = workload.clock()
    for at in range(0, len(ids), batch_size):
        batch = slice(at, at + batch_size)
        optimizer.zero_grad()
        loss = stock(ids[batch].to(device), attention_mask=mask[batch].to(device), labels=labels[batch].to(device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stock.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return workload.clock() - started
