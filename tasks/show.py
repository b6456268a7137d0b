"""Puts progress and reports in front of people as Prefect artifacts. What cannot be shown is logged and never fails a run."""

from __future__ import annotations

import logging
import math
import time
from typing import Any
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

from tasks import reports
from tasks.running import Logger, progress_line
from tasks.watch import Event
from tasks.workplace import Workplace

_INTERVAL = 3.0  # seconds between updates: each is a request to the server
_PAUSE = 60.0  # seconds without updates after one failed: a request to a server that is away takes long
KEYS = {"clean": "data-report", "split": "split", "train": "training", "evaluate": "evaluation"}
_log = logging.getLogger(__name__)


class Progress:
    """A progress artifact that follows a stage's events; made when the first one comes."""

    def __init__(self, stage: str, logger: Logger) -> None:
        """Nothing is shown before the first progress event."""
        self.key = f"progress-{stage}"
        self.logger = logger
        self._id: UUID | None = None
        self._what: Any = None
        self._shown = -math.inf
        self._next = 0.0  # when a failed update may be tried again
        self._failing = False

    def __call__(self, event: Event) -> None:
        """Show a progress event, now and then."""
        total = event.get("total")
        if event.get("kind") != "progress" or not total:
            return
        if self._id is None and event.get("done") == total:
            return  # over before anybody could look
        last = event.get("done") == total or event.get("what") != self._what
        now = time.monotonic()
        if now < self._next or (now - self._shown < _INTERVAL and not last):
            return
        self._shown, self._what = now, event.get("what")
        percent = min(100.0, 100.0 * float(event.get("done", 0)) / float(total))
        try:
            if self._id is None:
                made = create_progress_artifact(progress=percent, key=self.key, description=progress_line(event))
                assert isinstance(made, UUID)
                self._id = made
            else:
                update_progress_artifact(self._id, progress=percent, description=progress_line(event))
            self._failing = False
        except Exception as error:  # a server that is away must not end a training
            self._next = time.monotonic() + _PAUSE
            if not self._failing:  # said once, and again only when it had worked in between
                self.logger.warning("Progress is not shown for now: %s", error)
            self._failing = True


def show_report(stage: str, place: Workplace, logger: Logger) -> None:
    """Show what a stage left."""
    try:
        text = reports.after(stage, place)
        if text is not None:
            create_markdown_artifact(markdown=text, key=KEYS[stage], description=f"What {stage} left")
    except Exception as error:
        logger.warning("The report of %s is not shown: %s", stage, error)
