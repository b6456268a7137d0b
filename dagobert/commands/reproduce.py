"""`dagobert reproduce REV`: run a past experiment again and say whether it came out the same."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagobert.commands import Commands

DESCRIPTION = """\
Run a past experiment again, in a clone, and compare every output with what was recorded. The working tree is not touched.

exit code 0: identical, or within tolerance (the machine or its libraries differ, the metrics do not);
          1: different (says where first, how, and the likeliest cause);
          2: cannot run (says what is missing and where it may be had);
        143: ended by SIGTERM (130: Ctrl-C); all it had started has ended and the clone is gone."""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "reproduce",
        help="run a past experiment again and compare every output with the record",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "revision",
        metavar="REV",
        nargs="?",
        default="HEAD",
        help="commit, tag, branch, experiment, or a stage such as production (default: HEAD)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the report here, beside .dagobert/reproductions/COMMIT.json"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the report as Markdown")
    parser.add_argument("--fetch", action="store_true", help="get the data from its source again, not the recorded snapshot")
    parser.add_argument(
        "--pull",
        action="store_true",
        help="get what is missing or damaged from the DVC remote: inputs, and recorded outputs to compare with",
    )
    parser.add_argument("--keep", action="store_true", help="leave the clone where it is")
    parser.add_argument(
        "--tolerance",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="absolute tolerance of a metric where the machine differs, such as accuracy=0.01; may be given more than once",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Reproduce, print the table, write the JSON."""
    from dagobert import events, files
    from dagobert.interruption import tidied_up
    from dagobert.repository import Repository
    from dagobert.reproduction import REPORTS, Options, reproduce
    from dagobert.verdicts import markdown, text

    repository = Repository.find()
    options = Options(arguments.fetch, arguments.pull, arguments.keep, _tolerances(arguments.tolerance))
    with tidied_up(), events.recording("reproduce", repository.root / ".dagobert/events/reproduce.jsonl"):
        report = reproduce(repository, arguments.revision, options)
        events.fact("verdict", **report.as_json())
    for path in filter(None, (repository.root / REPORTS / f"{report.commit[:10]}.json", arguments.json)):
        files.write_json(path, report.as_json())
    if arguments.markdown:
        with files.atomic_file(arguments.markdown) as path:
            path.write_text(markdown(report), encoding="utf-8")
    print(text(report))
    return report.exit_code


def _tolerances(given: list[str]) -> dict[str, float]:
    from dagobert.errors import ParameterError

    found: dict[str, float] = {}
    for item in given:
        name, _, value = item.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ParameterError(f"--tolerance {item}: expected NAME=VALUE, such as accuracy=0.01.") from None
    return found
