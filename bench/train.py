"""`python -m bench.train`: training and scoring beside what people use otherwise, interleaved in one run, medians of rounds.

Each round takes every engine through the same sequences; ratios are between medians. It makes its own data and weights, so
it runs where only torch, transformers, pyarrow, pandas and scikit-learn are, and without network: `--device cuda` too.
Correctness comes first: packed logits against the stock model's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from bench import workload
from bench.baselines import trainer as hf
from bench.baselines import tutorial
from bench.workload import Workload
from dagobert import determinism
from dagobert.batches import pack
from dagobert.encoder import choose_device, compute_dtype
from dagobert.heads import classification
from dagobert.scoring import Scorer
from dagobert.training import StopRequest, Trainer

CEILING = ((4096, 384, 1536), (4096, 768, 3072))
TARGETS = {"tutorial": 10.0, "trainer": 3.0, "trainer, attention dropout 0": 1.4, "padded scoring": 4.0, "ceiling": 0.55}


def recipe(batch_size: int, tokens: int) -> Any:
    """The same recipe as the baselines': what `TrainParams` holds, without params.yaml or pydantic."""
    return SimpleNamespace(
        seed=0, num_train_epochs=1, learning_rate=1e-4, weight_decay=0.01, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8,
        max_grad_norm=1.0, lr_scheduler_type="linear", warmup_steps=0.0, train_batch_size=batch_size, train_batch_tokens=None,
        tokens_per_batch=tokens, train_sampling="uniform", class_weights="none", eval_strategy="epoch", eval_steps=1,
        load_best_model_at_end=False, metric_for_best_model="loss", early_stopping_patience=None, layer_wise_lr_decay=1.0,
        label_smoothing_factor=0.0, save_steps=10**9,
    )  # fmt: skip


def dagobert(model: nn.Module, work: Workload, device: torch.device, dtype: torch.dtype, batch_size: int, tokens: int) -> float:
    """Seconds of one epoch of the packed engine."""
    data = work.examples()
    ready = classification.runner(model.to(device).train(), dtype)
    run = Trainer(ready, data, data, recipe(batch_size, tokens), None, StopRequest())
    started = workload.clock()
    for _ in range(run.total):
        run._train_step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return workload.clock() - started


def padded_scoring(model: nn.Module, work: Workload, device: torch.device) -> float:
    """What `pipeline("text-classification", batch_size=32)` computes: batches of 32 in the given order, padded, fp32."""
    stock: Any = model.to(device).eval()
    rows = hf.Rows(work)
    started = workload.clock()
    with torch.no_grad():
        for at in range(0, len(rows), 32):
            batch = hf.pad([rows[i] for i in range(at, min(at + 32, len(rows)))])
            stock(batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device)).logits.cpu()
    return workload.clock() - started


def packed_scoring(model: nn.Module, work: Workload, device: torch.device, dtype: torch.dtype) -> float:
    """The same by `Scorer`."""
    scorer = Scorer(classification.runner(model.to(device), dtype), device, 2)
    store = work.store()
    started = workload.clock()
    scorer.logits(store)
    return workload.clock() - started


def ceiling(device: torch.device, dtype: torch.dtype, repeats: int) -> float:
    """The machine's own matrix-product rate, FLOP/s: the best of the two shapes."""
    best = 0.0
    for m, k, n in CEILING:
        factor = 16 if device.type == "cuda" else 1
        a, b = torch.randn(m * factor, k, device=device, dtype=dtype), torch.randn(n, k, device=device, dtype=dtype)
        times = []
        for _ in range(repeats + 2):
            if device.type == "cuda":
                torch.cuda.synchronize()
            started = workload.clock()
            a @ b.t()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(workload.clock() - started)
        best = max(best, 2.0 * m * factor * k * n / statistics.median(times[2:]))
    return best


def check(name: str, device: torch.device) -> float:
    """Largest difference between packed and stock logits in fp32; more than 1e-4 stops the benchmark."""
    work = workload.make(8, 512)
    model: Any = workload.model(name, attention_dropout=0.0)
    model.to(device).eval()
    with torch.no_grad():
        found = classification.runner(model, torch.float32).logits(pack(work.store(), np.arange(8), device))
        worst = 0.0
        for i, sequence in enumerate(work.sequences):
            expected = model(torch.from_numpy(sequence)[None].to(device)).logits[0]
            worst = max(worst, float((found[i] - expected).abs().max()))
    if worst > 1e-4:
        raise SystemExit(f"packed logits differ from the stock model's by {worst:.2g}: nothing was measured")
    return worst


BASELINES = ("tutorial", "trainer", "trainer, attention dropout 0", "padded scoring")
OURS = ("dagobert", "dagobert scoring")


def serve(arguments: argparse.Namespace) -> None:
    """What a worker does: for each engine named on stdin, run it once and print sequences a second.

    Baselines have a process of their own, because the engine's settings (memory kept, deterministic kernels) would change them.
    """
    device = choose_device(arguments.device)
    dtype = compute_dtype("auto", device)
    threads = arguments.threads or determinism.available_cores()
    torch.set_num_threads(threads)
    if arguments.worker == "dagobert":
        determinism.set_up(threads=threads, seed=0, deterministic=device.type == "cpu")
    if arguments.clock == "cpu":
        workload.clock = time.process_time
    work = workload.make(arguments.sequences, arguments.max_length)
    # every batch of the tutorial costs the same, so it gets one
    few = workload.make(min(arguments.batch_size, arguments.sequences), arguments.max_length)
    size, tokens = arguments.batch_size, arguments.tokens

    def model(attention_dropout: float) -> nn.Module:
        return workload.model(arguments.model, attention_dropout=attention_dropout)

    engines: dict[str, tuple[Workload, Callable[[], float]]] = {
        "tutorial": (few, lambda: tutorial.train(model(0.1), few, device, batch_size=size)),
        "trainer": (work, lambda: hf.train(model(0.1), work, device, batch_size=size)),
        "trainer, attention dropout 0": (work, lambda: hf.train(model(0.0), work, device, batch_size=size)),
        "dagobert": (work, lambda: dagobert(model(0.0), work, device, dtype, size, tokens)),
        "padded scoring": (work, lambda: padded_scoring(model(0.0), work, device)),
        "dagobert scoring": (work, lambda: packed_scoring(model(0.0), work, device, dtype)),
        "ceiling": (work, lambda: len(work.sequences) / ceiling(device, dtype, 5 + 15 * (device.type == "cuda"))),
    }
    for line in sys.stdin:
        load, run = engines[line.strip()]
        with contextlib.redirect_stdout(sys.stderr):
            rate = len(load.sequences) / run()
        print(json.dumps(rate), flush=True)


def measure(arguments: argparse.Namespace, argv: list[str]) -> dict[str, Any]:
    """Run all engines round by round."""
    device = choose_device(arguments.device)
    difference = check(arguments.model, device)
    workers = {
        kind: subprocess.Popen(
            [sys.executable, "-m", "bench.train", *argv, "--worker", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if arguments.verbose else subprocess.DEVNULL,
            text=True,
        )
        for kind in ("baselines", "dagobert")
    }

    def ask(name: str) -> float:
        worker = workers["baselines" if name in BASELINES else "dagobert"]
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(name + "\n")
        worker.stdin.flush()
        answer = worker.stdout.readline()
        if not answer:
            raise SystemExit(f"{name} failed: run again with --verbose")
        return float(json.loads(answer))

    rates: dict[str, list[float]] = {name: [] for name in (*BASELINES, *OURS, "ceiling")}
    for number in range(arguments.rounds + 1):  # the first round warms up and is not counted
        for name, values in rates.items():
            if number == 0 and name == "tutorial":
                continue
            rate = ask(name)
            values += [rate] if number else []
            print(f"round {number}: {name} {rate:.4g}", file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.communicate()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ours, lengths = medians["dagobert"], workload.make(arguments.sequences, arguments.max_length).lengths
    per_sequence = workload.flops(workload.model(arguments.model, attention_dropout=0.0), lengths) / len(lengths)
    return {
        "model": arguments.model,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "dtype": str(compute_dtype("auto", device)).removeprefix("torch."),
        "clock": arguments.clock,
        "threads": arguments.threads or determinism.available_cores(),
        "torch": torch.__version__,
        "sequences": arguments.sequences,
        "max_length": arguments.max_length,
        "batch_size": arguments.batch_size,
        "rounds": arguments.rounds,
        "packed_minus_stock": difference,
        "sequences_per_second": medians,
        "all_rounds": rates,
        "ratio": {
            **{name: ours / medians[name] for name in BASELINES[:3]},
            "padded scoring": medians["dagobert scoring"] / medians["padded scoring"],
            "ceiling": ours * per_sequence / medians["ceiling"],
        },
    }


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rate, ratio = found["sequences_per_second"], found["ratio"]
    lines = ["| against | its sequences/s | dagobert | ratio | target |", "|---|---|---|---|---|"]
    for name in ("tutorial", "trainer", "trainer, attention dropout 0", "padded scoring"):
        ours = rate["dagobert scoring" if name == "padded scoring" else "dagobert"]
        lines.append(f"| {name} | {rate[name]:.2f} | {ours:.2f} | {ratio[name]:.2f}× | {TARGETS[name]:g}× |")
    share = f"{ratio['ceiling']:.0%}"
    lines.append(
        f"| ceiling ({rate['ceiling'] / 1e9:.0f} GFLOP/s) | | {rate['dagobert']:.2f} | {share} | {TARGETS['ceiling']:.0%} |"
    )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    parser.add_argument("--model", choices=sorted(workload.SHAPES), default="minilm-l6")
    parser.add_argument("--sequences", type=int, default=64, help="sequences a round")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=8192, help="tokens computed at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a machine that others use")
    parser.add_argument("--quick", action="store_true", help="32 sequences, 2 rounds: under five minutes on two cores")
    parser.add_argument("--out", type=Path, default=Path("reports/bench/train.json"))
    parser.add_argument("--verbose", action="store_true", help="show what the engines print")
    parser.add_argument("--worker", choices=["baselines", "dagobert"], help=argparse.SUPPRESS)
    given = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(given)
    if arguments.quick:
        arguments.sequences, arguments.rounds = 32, 2
    if arguments.worker:
        serve(arguments)
        return 0
    found = measure(arguments, given)
    print(table(found))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
