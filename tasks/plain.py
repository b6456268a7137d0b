"""What Prefect prints of a run: no tracebacks around errors that say what to do, and no end of a run that nobody reads.

An error that says what to do would be shown with the twenty lines of traceback that Prefect puts around it. A worker that dies
takes along the pipe into which its runs print, and the next line would end the run as well (rich, which prints, calls `exit`).
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from tasks.errors import TaskError


class _NoTraceback(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], TaskError):
            record.exc_info = None
        return True


_FILTER = _NoTraceback()


def hide_tracebacks() -> None:
    """From here on; calling it again changes nothing."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_FILTER)


def outlive_the_reader() -> None:
    """From here on, when nobody reads any more what is printed, print nowhere and go on."""
    known = [logging.root, *logging.Logger.manager.loggerDict.values()]
    for handler in {handler for logger in known if isinstance(logger, logging.Logger) for handler in logger.handlers}:
        console: Any = getattr(handler, "console", None)
        if console is not None:
            console.on_broken_pipe = _print_nowhere


def _print_nowhere() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
