"""`dagobert promote`, `rollback`, `restore`, `export` and `promotions`: which model is in production, how it came there, and
taking one away."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagobert.commands import Commands


def register(commands: Commands) -> None:
    """Add the commands."""
    parser = commands.add_parser(
        "promote",
        help="put an experiment's model in production, if it passes the gate",
        description="Tag an experiment as the model in a stage, if it is better than what is there by the paired test, "
        "no worse calibrated, its data contract clean and its record whole.",
    )
    parser.add_argument("revision", metavar="EXP", help="experiment, commit, tag or branch")
    _stage(parser)
    parser.add_argument("--because", metavar="REASON", help="do it although the gate says no; the reason is kept")
    parser.set_defaults(run=promote)

    parser = commands.add_parser(
        "rollback",
        help="put back the model that was in production before",
        description="Tag what was in the stage before, and restore model and lock in the working tree without moving HEAD.",
    )
    _stage(parser)
    parser.add_argument("--because", metavar="REASON", help="kept in the tag")
    parser.add_argument("--tag-only", action="store_true", help="leave the working tree as it is")
    parser.set_defaults(run=rollback)

    parser = commands.add_parser("restore", help="make the working tree that of an experiment, without moving HEAD")
    parser.add_argument("revision", metavar="EXP", help="experiment, commit, tag, branch, or a stage such as production")
    parser.set_defaults(run=restore)

    parser = commands.add_parser(
        "export",
        help="a recorded model with its card and lineage, to give away",
        description="Write the model of an experiment to a new directory: its files, every byte checked, the model card as "
        "README.md, and dagobert.json with commit, parameters and metrics. transformers loads it as it is.",
    )
    parser.add_argument("revision", metavar="EXP", help="experiment, commit, tag, branch, or a stage such as production")
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="a directory that is not there yet")
    parser.set_defaults(run=export)

    parser = commands.add_parser("promotions", help="history of what was in production, newest first")
    parser.add_argument("--stage", help="only this stage")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=promotions)


def _stage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage", default="production", help="stage (default: production)")


def promote(arguments: argparse.Namespace) -> int:
    """Ask the gate, then tag."""
    from dagobert import promotion
    from dagobert.repository import Repository

    made, checks = promotion.promote(Repository.find(), arguments.revision, arguments.stage, because=arguments.because)
    for check in checks:
        print(f"  {'passed' if check.passed else 'FAILED'}  {check.name}: {check.text}")
    print(f"{arguments.revision} is in {made.stage} ({made.version}). Tell the others: git push --tags; dvc push")
    return 0


def rollback(arguments: argparse.Namespace) -> int:
    """Tag what was there before, and restore it."""
    from dagobert import promotion
    from dagobert.repository import Repository

    repository = Repository.find()
    made = promotion.rollback(repository, arguments.stage, because=arguments.because, tag_only=arguments.tag_only)
    print(f"{made.stage} is {made.version} ({made.commit[:10]}) again. Tell the others: git push --tags")
    if not arguments.tag_only:
        print("Model and lock in the working tree are its own; HEAD was not moved. Go back: git restore . && dvc checkout")
    return 0


def restore(arguments: argparse.Namespace) -> int:
    """Restore without moving HEAD."""
    from dagobert import restoring
    from dagobert.repository import Repository

    repository = Repository.find()
    commit = repository.resolve(arguments.revision)
    restoring.restore(repository, commit)
    print(f"The working tree is that of {commit[:10]}; HEAD was not moved. Go back: git restore . && dvc checkout")
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write model, card and lineage."""
    from dagobert.export import export as write
    from dagobert.repository import Repository

    print(f"{write(Repository.find(), arguments.revision, arguments.directory)}: model, README.md and dagobert.json")
    return 0


def promotions(arguments: argparse.Namespace) -> int:
    """Print the history."""
    from dagobert import promotion
    from dagobert.repository import Repository

    found = promotion.history(Repository.find(), arguments.stage)
    print(json.dumps([assignment.as_json() for assignment in found], indent=2) if arguments.json else promotion.text(found))
    return 0
