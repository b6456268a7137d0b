"""`dagobert experiments`, `record` and `inspect`: what was run, keeping what was run, and where a file came from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagobert.commands import Commands


def register(commands: Commands) -> None:
    """Add the commands."""
    parser = commands.add_parser("experiments", help="table of what was run: who, when, changed parameters, accuracy, time")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=experiments)

    parser = commands.add_parser(
        "record",
        help="keep the run that lies here as an experiment",
        description="Keep the run that lies here as a DVC experiment. Refused while `dvc status` is not clean.",
    )
    parser.add_argument("name", metavar="NAME", help="what to call it")
    parser.add_argument("--force", action="store_true", help="replace the experiment of this name")
    parser.add_argument(
        "--started-by", metavar="WHO", help="who started it (default: $DAGOBERT_STARTED_BY, or git's user.name)"
    )
    parser.set_defaults(run=record)

    parser = commands.add_parser(
        "inspect",
        help="where a model, shards or a report came from",
        description="Find a file or directory by its content in everything that was ever recorded here, and tell what made it.",
    )
    parser.add_argument("path", type=Path, metavar="MODEL|SHARDS|REPORT|FILE", help="a file or directory, here or elsewhere")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=inspect)


def experiments(arguments: argparse.Namespace) -> int:
    """Print the table."""
    from dagobert.experiments import rows, table
    from dagobert.repository import Repository

    found = rows(Repository.find())
    print(json.dumps([row.as_json() for row in found], indent=2) if arguments.json else table(found))
    return 0


def record(arguments: argparse.Namespace) -> int:
    """Save the experiment."""
    from dagobert.experiments import record as save
    from dagobert.repository import Repository

    name = save(Repository.find(), arguments.name, started_by=arguments.started_by, force=arguments.force)
    print(
        f"Recorded as {name}. See it: dagobert experiments. Get it back: dvc exp apply {name}. "
        f"Prove it: dagobert reproduce {name}"
    )
    return 0


def inspect(arguments: argparse.Namespace) -> int:
    """Print where it came from."""
    from dagobert.lineage import inspect as look
    from dagobert.lineage import text
    from dagobert.repository import Repository

    found = look(Repository.find(), arguments.path)
    print(json.dumps(found.as_json(), indent=2, default=str) if arguments.json else text(found))
    return 0
