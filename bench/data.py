"""`python -m bench.data`: every figure about data, side by side with what people use otherwise; a table, and JSON with `-o`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import cleaning, tokenization
from dagobert import files


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.data", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds, of which the median counts")
    parser.add_argument("--rows", type=int, nargs=2, default=(100_000, 1_000_000), help="sizes for memory and time; 0 0: none")
    parser.add_argument("--only", choices=["clean", "tokens"], help="leave the other out")
    parser.add_argument("-o", "--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    sizes: tuple[int, int] = (arguments.rows[0], arguments.rows[1])
    result: dict[str, Any] = {"machine": {"processor": platform.machine(), "cores": os.cpu_count()}}
    with tempfile.TemporaryDirectory(prefix="dagobert-bench-") as directory:
        work = Path(directory)
        if arguments.only != "tokens":
            result["raw_to_clean"] = cleaning.side_by_side(work, arguments.rounds)
        if arguments.only != "clean":
            result["text_to_shards"] = tokenization.side_by_side(tokenization.reviews(), work, arguments.rounds)
        if sizes[0]:
            result["growth"] = {}
            if arguments.only != "tokens":
                result["growth"]["clean"] = cleaning.growth(work, sizes)
            if arguments.only != "clean":
                result["growth"] |= tokenization.growth(tokenization.reviews(), work, sizes)
    for line in table(result):
        print(line)
    if arguments.out:
        files.write_json(arguments.out, result)
    return 0


def table(result: dict[str, Any]) -> list[str]:
    """The figures beside their targets."""
    lines = []
    if found := result.get("raw_to_clean"):
        lines.append(_line("raw file → clean rows, times pandas", found["times_pandas"], "≥ 5"))
        lines.append(_line("  the same in processor time", found["times_pandas_processor"], ""))
        lines.append(_line("  texts that differ", found["texts_that_differ"], "0"))
    if found := result.get("text_to_shards"):
        lines.append(_line("text → shards, times the tutorial's way", found["times_tutorial"], "≥ 20"))
        lines.append(_line("text → shards, times datasets.map", found["times_datasets_map"], "≥ 10"))
        lines.append(_line("  rows with other ids", found["rows_with_other_ids"], "0"))
    for stage, found in result.get("growth", {}).items():
        lines.append(_line(f"{stage}: memory at 10× the rows", found["memory_ratio"], "≤ 1.3"))
        lines.append(_line(f"{stage}: processor time at 10× the rows", found["time_ratio"], "≤ 11"))
    return lines


def _line(what: str, value: float, target: str) -> str:
    return f"{what:45} {value:>8}   {target}"


if __name__ == "__main__":
    sys.exit(main())
