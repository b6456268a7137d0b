"""`dagobert compare CANDIDATE INCUMBENT`: which of two models is better on the test rows, by more than chance or not."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagobert.commands import Commands


def register(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "compare",
        help="compare two models on the test rows",
        description="Accuracy of two models on the test rows of data/, and a paired test of the difference, as JSON.",
    )
    parser.add_argument("candidate", metavar="CANDIDATE", type=Path, help="directory of a model")
    parser.add_argument("incumbent", metavar="INCUMBENT", type=Path, help="directory of another model")
    parser.add_argument(
        "--seen",
        metavar="DIR",
        type=Path,
        help="clean.parquet and splits.parquet of INCUMBENT: what it was trained on is left out",
    )
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, help="file to write (default: standard output)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare and write."""
    from dagobert import comparison, events, files
    from dagobert.prediction import Predictor
    from dagobert.stages import paths

    seen = None if arguments.seen is None else (arguments.seen / paths.CLEAN.name, arguments.seen / paths.SPLITS.name)
    with events.recording("compare", None):
        rows = comparison.held_out(paths.CLEAN, paths.SPLITS, seen)
        candidate, incumbent = (Predictor.load(model, "auto", "auto") for model in (arguments.candidate, arguments.incumbent))
        found = comparison.compare(candidate, incumbent, rows)
        if arguments.output is None:
            print(json.dumps(found, indent=2))
        else:
            files.write_json(arguments.output, found)
    return 0
