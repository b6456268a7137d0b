from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy
import sklearn
import torch

from dagobert import determinism


def test_seeds_reach_every_generator() -> None:
    def draw() -> tuple[float, float, float]:
        determinism.seed_everything(5)
        return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002

    assert draw() == draw()


def test_the_fingerprint_holds_what_the_bytes_depend_on_and_no_clock() -> None:
    found = determinism.fingerprint(torch.device("cpu"), torch.bfloat16, deterministic=True)
    assert found == determinism.fingerprint(torch.device("cpu"), torch.bfloat16, deterministic=True)
    assert {"torch", "transformers", "threads", "cpu_capability", "compute_dtype", "device", "deterministic"} <= found.keys()
    assert {name: found[name] for name in ("scikit-learn", "scipy", "pyarrow")} == {
        "scikit-learn": sklearn.__version__,
        "scipy": scipy.__version__,
        "pyarrow": pa.__version__,
    }
    assert found["compute_dtype"] == "bfloat16"
    assert json.loads(json.dumps(found)) == found


def test_the_fingerprint_names_processor_kernels_and_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = determinism.fingerprint(torch.device("cpu"), torch.float32, deterministic=True)
    assert found["processes"] == 2
    assert found["cpu"]
    assert found["cpu"] in Path("/proc/cpuinfo").read_text() or sys.platform != "linux"
    for name, built_in in (("mkl", torch.backends.mkl.is_available()), ("onednn", torch.backends.mkldnn.is_available())):
        assert (found[name] is not None) == built_in
        assert not built_in or found[name][0].isdigit()


def test_the_fingerprint_of_a_gpu_names_its_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.1  Thu\nGCC version: 13\n")
    read = determinism._first_match
    monkeypatch.setattr(determinism, "_first_match", lambda _, pattern: read(tmp_path / "version", pattern))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    found = determinism.fingerprint(torch.device("cuda"), torch.float32, deterministic=True)
    assert (found["gpu"], found["driver"]) == ("A GPU", "NVIDIA UNIX x86_64 Kernel Module 570.1 Thu")
    assert read(tmp_path / "none", "x") is None


def test_the_processes_of_torchrun_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(determinism, "available_cores", lambda: 8)
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        for processes in ("1", "3", "16"):
            monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
            determinism.set_up(threads=None, seed=1, deterministic=False)
        determinism.set_up(threads=4, seed=1, deterministic=False)
    finally:
        torch.use_deterministic_algorithms(deterministic)
    assert chosen == [8, 2, 1, 4]


def test_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        determinism.set_up(threads=1, seed=1, deterministic=True)
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        determinism.set_up(threads=None, seed=1, deterministic=False)
        assert torch.get_num_threads() == determinism.available_cores()
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_is_kept() -> None:
    assert determinism.keep_memory()
    monkey = torch.zeros(50 << 20, dtype=torch.uint8)
    address = monkey.data_ptr()
    del monkey
    assert abs(torch.zeros(50 << 20, dtype=torch.uint8).data_ptr() - address) < 200 << 20
