"""What the flows share when they are started from a shell: settings as `dvc exp run -S` writes them, and plain errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tasks.errors import TaskError
from tasks.values import parse_setting

Form = TypeVar("Form", bound=BaseModel)


def lists(kind: type[Form], settings: list[str]) -> Form:
    """A form of lists filled from `NAME=[VALUE,…]` settings.

    Raises:
        TaskError: one line for each wrong value.
    """
    parsed = [parse_setting(f"values.{setting}") for setting in settings]
    return _validated(kind, {name: value if isinstance(value, list) else [value] for _, name, value in parsed})


def form(kind: type[Form], settings: list[str]) -> Form:
    """A form filled from `SECTION.NAME=VALUE` settings.

    Raises:
        TaskError: one line for each wrong value.
    """
    values: dict[str, dict[str, Any]] = {}
    for setting in settings:
        section, name, value = parse_setting(setting)
        values.setdefault(section, {})[name] = value
    return _validated(kind, values)


def _validated(kind: type[Form], values: dict[str, Any]) -> Form:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc'][:2])}: {item['msg']} (it is {item['input']!r})"
            for item in error.errors()
        ]
        raise TaskError("\n".join(dict.fromkeys(lines))) from None


def run(start: Callable[[], object]) -> int:
    """Run a flow; the exit code of the process."""
    try:
        start()
    except TaskError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
