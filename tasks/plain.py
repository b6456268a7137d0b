"""Errors that say what to do are shown without the twenty lines of traceback that Prefect puts around them."""

from __future__ import annotations

import logging

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
