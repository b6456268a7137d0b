"""`dagobert fsck`, `doctor` and `tidy`: is every byte whole, is this machine ready, and what may be removed."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagobert.commands import Commands


def register(commands: Commands) -> None:
    """Add the commands."""
    parser = commands.add_parser(
        "fsck",
        help="hash every cache object, output and checkpoint, and name the damaged ones",
        description="Hash every cache object, output and checkpoint. Exit code 1 when one is damaged.",
    )
    parser.add_argument(
        "--repair", action="store_true", help="set damaged objects aside, and restore those with a whole copy here"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=fsck)


def fsck(arguments: argparse.Namespace) -> int:
    """Examine and print."""
    from dagobert import events
    from dagobert.fsck import fsck as examine
    from dagobert.repository import Repository

    repository = Repository.find()
    with events.recording("fsck", repository.root / ".dagobert/events/fsck.jsonl"):
        found = examine(repository, repair=arguments.repair)
    if arguments.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        for damage in found.damages:
            state = "repaired" if damage.repaired else "DAMAGED"
            print(
                f"{state} ({damage.kind}) {damage.path}\n    belongs to: {damage.belongs_to}\n    way back:   {damage.way_back}"
            )
        print(f"{found.files:,} files, {found.bytes / 1e6:,.1f} MB hashed: {len(found.damages) or 'none'} damaged")
    return 1 if any(not damage.repaired for damage in found.damages) else 0
