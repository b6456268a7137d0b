"""`dagobert summary`: the table at the end of `make run`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagobert.commands import Commands


def register(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "summary",
        help="what the last run came to: rows, accuracy, times, what to try next",
        description="Rows, split, accuracy against the baseline, seconds a stage, where things lie, what to try next.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    from dagobert import summary
    from dagobert.runner import STAGES
    from dagobert.stages import paths

    data, split, metrics = summary.load(paths.REPORTS)
    started = paths.STATE / summary.STARTED
    since = started.stat().st_mtime if started.exists() else None
    places = {"model": f"{paths.MODEL}/", "report": str(paths.REPORT)}
    times = summary.stage_times(paths.EVENTS, list(STAGES), since)
    print(summary.table(data, split, metrics, times, places, summary.next_commands(str(paths.MODEL), Path())))
    return 0
