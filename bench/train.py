"""`python -m bench.train`: training and scoring beside what people use otherwise, interleaved in one run, medians of rounds.

Each round takes every engine through the same sequences; ratios are between medians. It makes its own data and weights, so
it runs where only torch, transformers, pyarrow, pandas and scikit-learn are, and without network: `--device cuda` too. What
needs more (`accelerate` for Hugging Face's Trainer, the package of reviews for the pipeline) is left out there, and said.
Correctness comes first: packed logits and gradients against the stock model's, in the type that is measured.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench import correctness, engines, workload
from bench.engines import BASELINES, COMPILED, FREE, OURS, NotHereError, Setting
from dagobert import determinism
from dagobert.encoder import choose_device, compute_dtype

TARGETS_CPU = {
    "tutorial": "10×",
    "trainer": "3×",
    "trainer, attention dropout 0": "1.4×",
    "pipeline": "4×",
    "padded stand-in": "4×",
    "batch assembly": "< 1 %",
    "ceiling": "55 %",
}
TARGETS_H100 = {"sequences/s": "2,500", "trainer": "4×", "batch assembly": "< 1 %", "ceiling": "40 %"}  # of BERT-base
SCORING = {"pipeline": "scoring texts", "padded stand-in": "scoring"}  # baseline: ours
TINY = {"model": "tiny", "sequences": 16, "max_length": 64, "batch_size": 4, "tokens": 512, "rounds": 1}
QUICK = {"sequences": 32, "rounds": 2}


def setting_of(arguments: argparse.Namespace) -> Setting:
    """What the command line asks for."""
    device = choose_device(arguments.device)
    return Setting(
        arguments.model, arguments.sequences, arguments.max_length, arguments.batch_size, arguments.tokens, device,
        compute_dtype("auto", device),
    )  # fmt: skip


def serve(arguments: argparse.Namespace) -> None:
    """What a worker does: for each engine named on stdin, run it once and print sequences a second, or why it cannot."""
    threads = arguments.threads or determinism.available_cores()
    torch.set_num_threads(threads)
    if arguments.worker == "dagobert":
        determinism.set_up(threads=threads, seed=0, deterministic=True)
    if arguments.clock == "cpu":
        workload.clock = time.process_time
    known = engines.engines(setting_of(arguments))
    for line in sys.stdin:
        count, run = known[line.strip()]
        with contextlib.redirect_stdout(sys.stderr):
            try:
                answer: dict[str, Any] = {"rate": count / run()}
            except NotHereError as error:
                answer = {"skipped": str(error)}
        print(json.dumps(answer), flush=True)


class Workers:
    """The two processes that engines run in."""

    def __init__(self, argv: Sequence[str], verbose: bool) -> None:
        self.processes = {
            kind: subprocess.Popen(
                [sys.executable, "-m", "bench.train", *argv, "--worker", kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if verbose else subprocess.DEVNULL,
                text=True,
            )
            for kind in ("baselines", "dagobert")
        }

    def ask(self, name: str) -> dict[str, Any]:
        """Run an engine once."""
        worker = self.processes["baselines" if name in BASELINES else "dagobert"]
        into, out = worker.stdin, worker.stdout
        assert into is not None
        assert out is not None
        into.write(name + "\n")
        into.flush()
        answer = out.readline()
        if not answer:
            raise SystemExit(f"{name} failed: run again with --verbose")
        found: dict[str, Any] = json.loads(answer)
        return found

    def end(self) -> None:
        """Let them go."""
        for worker in self.processes.values():
            worker.communicate()


def measure(arguments: argparse.Namespace, argv: Sequence[str]) -> dict[str, Any]:
    """Run all engines round by round."""
    setting = setting_of(arguments)
    checked = correctness.check(setting.model, setting.max_length, setting.device, setting.dtype)
    rates: dict[str, list[float]] = {name: [] for name in (*BASELINES, *OURS)}
    skipped: dict[str, str] = {}
    workers = Workers(argv, arguments.verbose)
    for number in range(arguments.rounds + 1):  # the first round warms up and is not counted
        for name in [name for name in rates if name not in skipped]:
            answer = workers.ask(name)
            if "skipped" in answer:
                skipped[name] = answer["skipped"]
            elif number:
                rates[name].append(answer["rate"])
            print(f"round {number}: {name} {answer}", file=sys.stderr, flush=True)
    workers.end()
    rates = {name: values for name, values in rates.items() if name not in skipped}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "model": setting.model,
        "device": torch.cuda.get_device_name() if setting.device.type == "cuda" else platform.machine(),
        "device_type": setting.device.type,
        "dtype": str(setting.dtype).removeprefix("torch."),
        "clock": arguments.clock,
        "threads": arguments.threads or determinism.available_cores(),
        "torch": torch.__version__,
        **{name: getattr(setting, name) for name in ("sequences", "max_length", "batch_size", "tokens")},
        "rounds": arguments.rounds,
        "packed_against_stock": checked,
        "skipped": skipped,
        "sequences_per_second": medians,
        "all_rounds": rates,
        "ratio": ratios(setting, medians),
    }


def ratios(setting: Setting, rate: dict[str, float]) -> dict[str, float]:
    """What the table shows: ours over theirs, and shares."""
    lengths = setting.work.lengths
    per_sequence = workload.flops(workload.model(setting.model, attention_dropout=0.0), lengths) / len(lengths)
    found = {name: rate[SCORING.get(name, "dagobert")] / rate[name] for name in BASELINES if name in rate}
    if COMPILED in rate:
        found["torch_compile"] = rate[COMPILED] / rate["dagobert"]
    return found | {
        "full_determinism": rate[FREE] / rate["dagobert"],
        "batch assembly": rate["dagobert"] / rate["batch assembly"],
        "ceiling": rate["dagobert"] * per_sequence / rate["ceiling"],
    }


def targets(found: dict[str, Any]) -> dict[str, str]:
    """Those of this device; on a GPU they are for BERT-base."""
    if found["device_type"] == "cpu":
        return TARGETS_CPU
    return TARGETS_H100 if found["model"] == "bert-base" else {}


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rate, ratio, target = found["sequences_per_second"], found["ratio"], targets(found)
    title = "target" if found["device_type"] == "cpu" else "target (one H100)"
    lines = [f"| against | its sequences/s | dagobert | ratio | {title} |", "|---|---|---|---|---|"]

    def line(name: str, theirs: str, ours: str, value: str, wanted: str) -> None:
        lines.append(f"| {name} | {theirs} | {ours} | {value} | {target.get(wanted, '')} |")

    if "sequences/s" in target:
        line("sequences/s", "", f"{rate['dagobert']:.0f}", "", "sequences/s")
    for name in BASELINES:
        if name in rate:
            line(name, f"{rate[name]:.2f}", f"{rate[SCORING.get(name, 'dagobert')]:.2f}", f"{ratio[name]:.2f}×", name)
        else:
            line(name, f"not run: {found['skipped'][name]}", "", "", name)
    ours = f"{rate['dagobert']:.2f}"
    line(f"ceiling ({rate['ceiling'] / 1e9:.0f} GFLOP/s)", "", ours, f"{ratio['ceiling']:.0%}", "ceiling")
    line("batch assembly, share of a step", "", ours, f"{ratio['batch assembly']:.2%}", "batch assembly")
    line("itself, full_determinism: false", f"{rate[FREE]:.2f}", ours, f"{1 / ratio['full_determinism']:.2f}×", "")
    if COMPILED in rate:
        line("itself, torch_compile: true", f"{rate[COMPILED]:.2f}", ours, f"{1 / ratio['torch_compile']:.2f}×", "")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__)
    root.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    root.add_argument("--model", choices=sorted(workload.SHAPES), default="minilm-l6")
    root.add_argument("--sequences", type=int, default=64, help="sequences a round")
    root.add_argument("--max-length", type=int, default=512)
    root.add_argument("--batch-size", type=int, default=16)
    root.add_argument("--tokens", type=int, default=8192, help="tokens computed at once")
    root.add_argument("--rounds", type=int, default=5)
    root.add_argument("--threads", type=int, default=None)
    root.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a machine that others use")
    root.add_argument("--quick", action="store_true", help="32 sequences, 2 rounds: under five minutes on two cores")
    root.add_argument("--tiny", action="store_true", help="a model of nothing: shows in seconds that everything runs")
    root.add_argument("--out", type=Path, default=Path("reports/bench/train.json"))
    root.add_argument("--verbose", action="store_true", help="show what the engines print")
    root.add_argument("--worker", choices=["baselines", "dagobert"], help=argparse.SUPPRESS)
    return root


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write."""
    given = sys.argv[1:] if argv is None else argv
    arguments = parser().parse_args(given)
    for name, value in {**(QUICK if arguments.quick else {}), **(TINY if arguments.tiny else {})}.items():
        setattr(arguments, name, value)
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
