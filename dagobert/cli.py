"""The `dagobert` command: a subcommand a stage, and what people do with the results.

Heavy libraries are imported inside the subcommand that needs them: `dagobert --help` answers in well under half a second.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dagobert import __version__
from dagobert.errors import DagobertError


def parser() -> argparse.ArgumentParser:
    """The command line, as argparse sees it."""
    from dagobert.commands import register_all
    from dagobert.runner import STAGES

    root = argparse.ArgumentParser(prog="dagobert", description="From a file of labelled text to a fine-tuned BERT, and back.")
    root.add_argument("--version", action="version", version=f"dagobert {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in STAGES.items():
        stage = commands.add_parser(name, help=f"stage: {what}", description=what)
        if name == "clean":
            stage.add_argument("--show", metavar="N", type=int, help="write nothing, print the N texts that change most")
    register_all(commands)
    return root


def main(argv: list[str] | None = None) -> int:
    """Run the command; errors the user can mend end with exit code 2 and one message."""
    _use_the_code_here()
    arguments = parser().parse_args(argv)
    try:
        return _dispatch(arguments)
    except DagobertError as error:
        print(f"dagobert {arguments.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"dagobert {arguments.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _use_the_code_here() -> None:
    """In another checkout of Dagobert (a queued experiment, a clone), run that checkout's code, not the installed one.

    DVC records the code of the checkout as what made the outputs, so that code must be what runs.
    """
    here = Path.cwd()
    code = here / "dagobert" / "cli.py"
    if not code.is_file() or not (here / "dvc.yaml").is_file() or code.samefile(__file__):
        return
    search = [str(here), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    assert search[1] != search[0], f"{here} is first on PYTHONPATH and still {__file__} was imported"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search))}
    os.execve(sys.executable, [sys.executable, "-m", "dagobert", *sys.argv[1:]], environment)


def _dispatch(arguments: argparse.Namespace) -> int:
    from dagobert.runner import STAGES, run_stage

    command: str = arguments.command
    if command == "clean" and arguments.show is not None:
        from dagobert.params import load_params
        from dagobert.stages import clean, paths

        print(*clean.show_changes(load_params(paths.PARAMS), arguments.show), sep="\n")
        return 0
    if command in STAGES:
        run_stage(command)
        return 0
    exit_code: int = arguments.run(arguments)
    return exit_code
