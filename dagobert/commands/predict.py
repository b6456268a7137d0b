"""`dagobert predict MODEL FILE -o OUT`: score every row of a file."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagobert.commands import Commands


def register(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "predict",
        help="score a file with a model",
        description="Write label, score and each class's probability for every row of FILE, in order.",
    )
    add = parser.add_argument
    add(
        "model",
        metavar="MODEL",
        type=Path,
        help="directory of a model (models/finetuned), or a stage or experiment (production)",
    )
    add(
        "file",
        metavar="FILE",
        help="CSV, TSV, JSON Lines, Parquet (also .gz, .zst), directory, glob, or - for standard input",
    )
    add("-o", "--output", metavar="OUT", required=True, help="file to write: .csv, .jsonl or .parquet; - for standard output")
    add("--text", metavar="COLUMN", default="text", help="column with the text (default: text)")
    add("--text-pair", metavar="COLUMN", help="column with the second text, for a model trained on pairs")
    add("--keep", metavar="COLUMN", nargs="+", default=[], help="columns of FILE to carry over into OUT")
    add(
        "--format",
        choices=["auto", "csv", "tsv", "jsonl", "parquet", "lines"],
        default="auto",
        help="format of FILE (default: by its name; standard input: lines, one text each)",
    )
    add(
        "--output-format",
        choices=["csv", "jsonl", "parquet"],
        help="format of OUT (default: by its name, - as csv)",
    )
    add(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="default: the GPU where there is one",
    )
    add(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="default: bf16 where it is native",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Score the file; say on standard error what was done."""
    from dagobert import events, prediction
    from dagobert.records import Columns, Reading

    with tempfile.TemporaryDirectory(prefix="dagobert-") as spool, events.recording("predict", None):
        kind = prediction.output_format(arguments.output, arguments.output_format)
        predictor = prediction.Predictor.load(_directory(arguments.model), arguments.device, arguments.precision)
        source, format_ = arguments.file, arguments.format
        if source == "-":
            source = str(prediction.standard_input(sys.stdin.buffer, Path(spool)))
            format_ = "lines" if format_ == "auto" else format_
        pair = [] if arguments.text_pair is None else [arguments.text_pair]
        columns = Columns(text=arguments.text, label=None, extra=tuple(dict.fromkeys([*arguments.keep, *pair])))
        rows, blank = prediction.predict_file(
            predictor, source, arguments.output, columns, Reading(format=format_), kind, arguments.text_pair
        )
        events.say(f"{rows:,} rows → {'standard output' if arguments.output == '-' else arguments.output}")
        if blank:
            events.warn(
                f"{blank:,} rows have no text to judge (missing, unreadable or empty after cleaning): their label is empty"
            )
    return 0


def _directory(name: Path) -> Path:
    """The directory itself, or the recorded model of a stage (`production`) or experiment, every byte checked."""
    from contextlib import suppress

    from dagobert.errors import RepositoryError
    from dagobert.promotion import model_directory
    from dagobert.repository import Repository

    commit = None
    if not name.exists():
        with suppress(RepositoryError):  # no repository here, or nothing in it has this name: a path after all
            repository = Repository.find()
            commit = repository.resolve(str(name))
    return model_directory(repository, str(name)) if commit else name
