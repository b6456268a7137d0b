"""`dagobert verify DIRECTORY`: hash and cross-check token shards, and name every file that is damaged."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagobert.commands import Commands


def register(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "verify",
        help="check token shards",
        description="Hash and cross-check every file of a directory of token shards, and name what is wrong.",
    )
    parser.add_argument("directory", metavar="DIRECTORY", type=Path, help="directory of token shards, such as data/tokens")
    parser.add_argument(
        "--clean",
        metavar="FILE",
        type=Path,
        default=Path("data/clean.parquet"),
        help="also compare with the rows of this file, if it exists (default: data/clean.parquet)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; exit code 2 where something is wrong."""
    from dagobert import shards
    from dagobert.shardcheck import problems

    found = problems(arguments.directory, arguments.clean)
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print("Make the tokens again: dvc repro --force --single-item tokenize", file=sys.stderr)
        return 2
    manifest = shards.read_manifest(arguments.directory)
    counts = f"{len(manifest.parts)} shards, {manifest.n_rows:,} rows, {manifest.n_tokens:,} tokens"
    print(f"{arguments.directory}: {counts}: all is well")
    return 0
