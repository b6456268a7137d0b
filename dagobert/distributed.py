"""One run on several processes: each takes a share of every optimizer step, and the gradients are added up.

A share is a run of neighbouring sequences with about as many tokens as the others. Because the loss counts each sequence by
its weight in the whole step and dropout is keyed to the place in the step, the sum over the processes is what one process
would have computed. Without `torchrun` every function here is a no-op.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

IntArray = npt.NDArray[np.int64]


def launched() -> bool:
    """Whether this process was started by torchrun."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def start(device: torch.device) -> torch.device:
    """Join the other processes of torchrun; returns this process's own device."""
    if not launched():
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # small messages and checkpoints lie in main memory and go over gloo also beside GPUs: those are not waited for
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return device


def stop() -> None:
    """Leave the group."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def share(lengths: IntArray) -> slice:
    """The part of a step's sequences (tokens of each, shape (B,)) that this process takes."""
    n, me = world(), rank()
    if n == 1:
        return slice(0, len(lengths))
    ends = np.cumsum(lengths)
    bounds = np.searchsorted(ends - lengths / 2, ends[-1] * np.arange(n + 1) / n)
    return slice(int(bounds[me]), int(bounds[me + 1]))


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over the processes, in one message."""
    if world() == 1:
        return
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    for t, piece in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        t.copy_(piece.view_as(t))


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if world() == 1:
        return flag
    value = torch.tensor([float(flag)])
    dist.all_reduce(value)
    return bool(value.item() > 0)


def agree(text: str) -> bool:
    """Whether the text (up to 64 ASCII characters) is the same in all processes."""
    if world() == 1:
        return True
    own = torch.tensor(list(text.encode("ascii").ljust(64)), dtype=torch.int64)
    least, most = own.clone(), own.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return torch.equal(least, most)


def from_first(data: bytes | None) -> bytes | None:
    """What process 0 gives (None: nothing), in all processes."""
    if world() == 1:
        return data
    size = torch.tensor([-1 if data is None else len(data)])
    dist.broadcast(size, 0)
    if size.item() < 0:
        return None
    content = torch.frombuffer(bytearray(data or b""), dtype=torch.uint8) if rank() == 0 else None
    out = torch.empty(int(size.item()), dtype=torch.uint8) if content is None else content
    dist.broadcast(out, 0)
    return out.numpy().tobytes()


def wait() -> None:
    """Wait until all processes are here."""
    if world() > 1:
        dist.barrier()
