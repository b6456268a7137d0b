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
        description="Hash every cache object, output and checkpoint. Exit code 1 when one is damaged or missing.",
    )
    parser.add_argument(
        "--repair", action="store_true", help="set damaged objects aside, and restore those with a whole copy here"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=fsck)

    parser = commands.add_parser("doctor", help="is this machine ready? one line a thing, and what to do")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=doctor)

    parser = commands.add_parser(
        "tidy",
        help="remove what old runs left behind: clones, checkpoints, cache objects that nothing names",
        description="Remove what no branch, tag, experiment or file of the working tree needs.",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would go and what it costs, remove nothing")
    parser.add_argument("--each", action="store_true", help="show each thing, not only the kinds")
    parser.add_argument(
        "--checkpoint-days", type=float, default=14, metavar="N", help="keep checkpoints touched since (default: 14)"
    )
    parser.set_defaults(run=tidy)


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
            state = "repaired" if damage.repaired else "MISSING" if damage.kind == "missing" else "DAMAGED"
            print(
                f"{state} ({damage.kind}) {damage.path}\n    belongs to: {damage.belongs_to}\n    way back:   {damage.way_back}"
            )
        missing = sum(damage.kind == "missing" for damage in found.damages)
        counts = f"{len(found.damages) - missing or 'none'} damaged" + (f", {missing} missing" if missing else "")
        print(f"{found.files:,} files, {found.bytes / 1e6:,.1f} MB hashed: {counts}")
    return 1 if any(not damage.repaired for damage in found.damages) else 0


def doctor(arguments: argparse.Namespace) -> int:
    """Examine and print; exit code 1 when something is bad."""
    from dagobert.doctor import examine, text
    from dagobert.repository import Repository

    found = list(examine(Repository.find().root))
    print(json.dumps([vars(finding) for finding in found], indent=2) if arguments.json else text(found))
    return 1 if any(finding.state == "bad" for finding in found) else 0


def tidy(arguments: argparse.Namespace) -> int:
    """Show, then remove."""
    from dagobert.hygiene import foreign_cache, leftovers, remove, text
    from dagobert.repository import Repository

    repository = Repository.find()
    found = leftovers(repository, checkpoint_days=arguments.checkpoint_days)
    print(text(found, each=arguments.each, foreign=foreign_cache(repository)))
    if found and arguments.dry_run:
        print("Nothing was removed. dagobert tidy removes it.")
    elif found:
        print(f"{remove(repository, found) / 1e6:,.1f} MB freed.")
    return 0
