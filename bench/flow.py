"""What the second door costs: the flow against `dvc repro`, the same work, on a warm server. Medians of N rounds, in seconds.

The stages are stand-ins that take no time, so that what is left is what Prefect and one DVC process a stage add. Targets: at
most 15 s more than `dvc repro`, at most 20 s for a run with nothing to do.

    python -m bench.flow [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tasks.values import write_values
from tests.flows.projects import environment, make_project, sh
from tests.flows.servers import running_server

MOST_MORE, MOST_IDLE = 15.0, 20.0


def seconds(command: list[str], root: Path, extra: dict[str, str]) -> float:
    """Wall time of a command, as a process."""
    started = time.perf_counter()
    subprocess.run(command, cwd=root, env={**environment(), **extra}, check=True, capture_output=True)
    taken = time.perf_counter() - started
    print(f"  {taken:6.1f} s  {Path(command[0]).name} {' '.join(command[1:4])}", file=sys.stderr, flush=True)
    return taken


def main() -> int:
    """Measure, print, and say whether the targets hold (exit code 1: not)."""
    parser = argparse.ArgumentParser(prog="python -m bench.flow", description="The flow against dvc repro.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    repro, flow = ["dvc", "repro", "-q"], [sys.executable, "-m", "flows.finetune"]
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-flow-") as name:
        base = Path(name).resolve()
        (base / "home").mkdir()
        by_hand, by_flow = make_project(base / "by-hand"), make_project(base / "by-flow")
        with running_server(base / "home") as server:
            extra = {**server.environment(), "DAGOBERT_CLONES": str(base / "clones")}
            for root, command in ((by_hand, repro), (by_flow, flow)):  # warm: imports, migrations, first files
                seconds(command, root, extra)
            sh(by_flow, "git", "add", "-A")
            sh(by_flow, "git", "commit", "-qm", "Run")
            for number in range(rounds):
                for root in (by_hand, by_flow):
                    write_values(root / "params.yaml", {"data": {"max_bytes": 10_000 + number}, "split": {"seed": number}})
                taken.setdefault("dvc repro, seven stages run", []).append(seconds(repro, by_hand, extra))
                taken.setdefault("flow, seven stages run", []).append(seconds(flow, by_flow, extra))
                taken.setdefault("dvc repro, nothing to do", []).append(seconds(repro, by_hand, extra))
                taken.setdefault("flow, nothing to do", []).append(seconds(flow, by_flow, extra))
                recorded = [*flow, "-S", f"train.seed={number}"]
                taken.setdefault("flow, in a clone and recorded", []).append(seconds(recorded, by_flow, extra))
    medians = {what: statistics.median(values) for what, values in taken.items()}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, median of {rounds} rounds")
    for what, value in medians.items():
        print(f"{what:32} {value:6.1f} s   ({min(taken[what]):.1f} to {max(taken[what]):.1f})")
    more = medians["flow, seven stages run"] - medians["dvc repro, seven stages run"]
    idle = medians["flow, nothing to do"]
    print(f"the flow costs {more:.1f} s more (target: at most {MOST_MORE:.0f})")
    print(f"with nothing to do it takes {idle:.1f} s (target: at most {MOST_IDLE:.0f})")
    return 0 if more <= MOST_MORE and idle <= MOST_IDLE else 1


if __name__ == "__main__":
    raise SystemExit(main())
