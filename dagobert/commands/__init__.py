"""What people do with the results: one module a command (or a family of commands), listed here in the order of `--help`.

A module declares its arguments in `register(commands)` and names the function to call with `set_defaults(run=…)`; that
function gets the parsed arguments and returns the exit code. Nothing heavy is imported at the top of these modules:
`--help` loads them all.
"""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

MODULES: tuple[str, ...] = (
    "summary",
    "predict",
    "verify",
    "compare",
    "reproduce",
    "history",
    "registry",
    "upkeep",
)


class CommandModule(Protocol):
    """What a module of this package offers."""

    def register(self, commands: Commands) -> None:
        """Add the command's parser, with `set_defaults(run=…)`."""


def register_all(commands: Commands) -> None:
    """Add every command to the command line."""
    for name in MODULES:
        cast(CommandModule, importlib.import_module(f"dagobert.commands.{name}")).register(commands)
