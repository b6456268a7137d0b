from __future__ import annotations

import json
import random
import sys

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
