"""`dagobert compare A B`: which of two experiments or models is better on the same test rows, and is it more than chance?"""

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
        help="compare recorded experiments, or two models, on the same test rows",
        description="Recorded experiments: parameters, data, figures and a paired test of each against the first. "
        "Two directories of models: accuracy of both on the test rows of data/ and a paired test, as JSON.",
    )
    parser.add_argument("candidate", metavar="A", help="experiment, commit, tag or branch; or the directory of a model")
    parser.add_argument("incumbent", metavar="B", help="another")
    parser.add_argument("others", metavar="C", nargs="*", help="and more experiments, each compared with A")
    parser.add_argument(
        "--common-rows", action="store_true", help="experiments: where held-out rows differ, use those in common"
    )
    parser.add_argument("--picture", metavar="PNG", type=Path, help="experiments: where to draw the differences")
    parser.add_argument("--json", action="store_true", help="experiments: print JSON")
    parser.add_argument(
        "--seen",
        metavar="DIR",
        type=Path,
        help="models: clean.parquet and splits.parquet of B, so that what B was trained on is left out",
    )
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, help="models: file to write (default: standard output)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Two directories are models; anything else is a recorded experiment."""
    if arguments.others or not all(Path(name).is_dir() for name in (arguments.candidate, arguments.incumbent)):
        return experiments(arguments)
    return models(arguments)


def experiments(arguments: argparse.Namespace) -> int:
    """Compare what was recorded, print it and draw it."""
    from dagobert.repository import Repository
    from dagobert.side_by_side import picture, side_by_side, text

    repository = Repository.find()
    names = [arguments.candidate, arguments.incumbent, *arguments.others]
    pairs = side_by_side(repository, names, common_rows=arguments.common_rows)
    path = arguments.picture or repository.root / ".dagobert/comparisons" / f"{'..'.join(names).replace('/', '-')}.png"
    picture(pairs, path)
    if arguments.json:
        print(json.dumps([pair.as_json() for pair in pairs], indent=2))
    else:
        print(f"{text(pairs)}\n\npicture: {path}")
    return 0


def models(arguments: argparse.Namespace) -> int:
    """Score the test rows with both models and write the outcome."""
    from dagobert import comparison, events, files
    from dagobert.prediction import Predictor
    from dagobert.stages import paths

    seen = None if arguments.seen is None else (arguments.seen / paths.CLEAN.name, arguments.seen / paths.SPLITS.name)
    with events.recording("compare", None):
        rows = comparison.held_out(paths.CLEAN, paths.SPLITS, seen)
        candidate, incumbent = (
            Predictor.load(model, "auto", "auto") for model in map(Path, (arguments.candidate, arguments.incumbent))
        )
        found = comparison.compare(candidate, incumbent, rows)
        if arguments.output is None:
            print(json.dumps(found, indent=2))
        else:
            files.write_json(arguments.output, found)
    return 0
