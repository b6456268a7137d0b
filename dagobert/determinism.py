"""Seeds, threads and kernels: the same inputs under the same fingerprint give the same bytes.

What the last bits of a model depend on besides its inputs is the fingerprint: it stands beside the model, and two runs that
differ only there are compared within a tolerance, not bit for bit. Measured: 1 and 2 threads differ, two runs of one setting
never do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import random
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Those that shape a model, and those behind the figures of `evaluate` (its baseline is scikit-learn's, solved by scipy).
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "scikit-learn", "pyarrow")


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch. The engine itself draws from counters; this is for what does not."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries read the legacy generator)
    torch.manual_seed(seed)


def set_up(*, threads: int | None, seed: int, deterministic: bool) -> None:
    """Fix threads, seeds and kernels for this process; the cores are divided among the processes of torchrun."""
    torch.set_num_threads(threads or max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    seed_everything(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic, warn_only=False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
    keep_memory()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_memory() -> bool:
    """Have glibc keep freed memory instead of returning it to the system after every tensor; true where that worked.

    Else each large intermediate is fresh memory whose pages the kernel clears one by one: on two Zen 4 cores the softmax of
    12.6 M fp32 numbers took 20 ms, and 5 ms with the memory kept. Changes no result.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    done = [mallopt(mmap_max, 0), mallopt(trim_threshold, 2**31 - 1), mallopt(top_pad, 64 << 20)]
    return all(done)


def give_memory_back() -> None:
    """Have glibc return what is free now: between windows of a long file, whose odd sizes would else pile up."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def fingerprint(device: torch.device, dtype: torch.dtype, *, deterministic: bool) -> dict[str, Any]:
    """What the bytes of a model depend on, besides its inputs and parameters."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        **{name: _version(name) for name in _LIBRARIES},
        "system": platform.system(),
        "machine": platform.machine(),
        "device": device.type,
        "compute_dtype": str(dtype).removeprefix("torch."),
        "deterministic": deterministic,
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_bf16": bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()),
        "cpu_amx": bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)()),
        "mkl": _built_with(r"Math Kernel Library Version (\S+)"),
        "onednn": _built_with(r"MKL-DNN v(\S+)"),
    }
    if device.type == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(device),
            "gpu_capability": list(torch.cuda.get_device_capability(device)),
            "cuda": torch.version.cuda,
            "cudnn": _cudnn(),
            "driver": _first_match(Path("/proc/driver/nvidia/version"), r"NVRM version: (.+)"),
        }
    return found


def _built_with(pattern: str) -> str | None:
    """The version of a library of kernels that torch was built with; None where it was built without."""
    found = re.search(pattern, torch.__config__.show())
    return found[1] if found else None


def _cpu() -> str:
    """The processor's name: kernels are chosen by its features and cache sizes."""
    return _first_match(Path("/proc/cpuinfo"), r"model name\s*: (.+)") or platform.processor() or platform.machine()


def _first_match(path: Path, pattern: str) -> str | None:
    """What a system file says of itself; None where there is no such file."""
    try:
        found = re.search(pattern, path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return " ".join(found[1].split()) if found else None


def _cudnn() -> int | None:
    backend: Any = torch.backends.cudnn
    found: int | None = backend.version()
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
