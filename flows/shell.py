"""What the flows share when they are started from a shell: settings as `dvc exp run -S` writes them, and plain errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from prefect.exceptions import FailedRun, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
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


def server_trouble(message: str) -> str | None:
    """What to do about a server that does not answer, or asks who we are; None for other trouble."""
    url = PREFECT_API_URL.value()
    if "Failed to reach API" in message:
        return (
            f"The Prefect server at {url} does not answer. Start it (`make serve`), or unset PREFECT_API_URL to run with a "
            "temporary one. `dvc repro` needs none."
        )
    if "401 Unauthorized" in message:
        return f"The Prefect server at {url} wants its auth string: set PREFECT_API_AUTH_STRING=user:password."
    return None


def run(start: Callable[[], object]) -> int:
    """Run a flow; the exit code of the process: 2 for what the user can mend, 1 for a flow that says it failed."""
    try:
        start()
    except TaskError as error:
        print(error, file=sys.stderr)
        return 2
    except FailedRun as failed:
        print(failed, file=sys.stderr)
        return 1
    except (RuntimeError, PrefectHTTPStatusError) as error:
        if (words := server_trouble(str(error))) is None:
            raise
        print(words, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
