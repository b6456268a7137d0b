"""`python -m tests.fuzz --files 10000 [--seed 0]`: exit code 1 and the seed of every case that fails."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.fuzz import cases, driver


def main() -> int:
    """Run the cases; print how they ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the others follow")
    arguments = parser.parse_args()
    base = driver.base_parameters(Path(__file__).resolve().parents[2])
    ends: Counter[str] = Counter()
    counted = failures = 0
    started, here = time.monotonic(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder, driver.no_fsync():
        os.chdir(folder)
        for seed in range(arguments.seed, arguments.seed + arguments.files):
            case = cases.make(seed)
            counted += case.records is not None
            try:
                ends[driver.run(case, base)] += 1
            except Exception as error:
                failures += 1
                ends["FAILED"] += 1
                print(f"seed {seed} ({case.name}): {type(error).__name__}: {error}", file=sys.stderr)
                if not isinstance(error, driver.Failure):
                    traceback.print_exc()
        os.chdir(here)
    for end, n in ends.most_common():
        print(f"{n:7,}  {end}")
    memory = driver.peak_memory() >> 20
    print(
        f"{arguments.files:,} cases, {counted:,} with a count of their own, {failures} failed, peak memory {memory:,} MB, ",
        end="",
    )
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
