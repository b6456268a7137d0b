from __future__ import annotations

import logging
from uuid import UUID

import pytest

from tasks import show


def test_progress_comes_back_after_a_failed_update(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock, away, shown = [100.0], [False], list[float]()

    def make(progress: float, **_: object) -> UUID:
        update(UUID(int=1), progress)
        return UUID(int=1)

    def update(artifact: UUID, progress: float, **_: object) -> None:
        if away[0]:
            raise ConnectionError("away")
        shown.append(progress)

    monkeypatch.setattr(show.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(show, "create_progress_artifact", make)
    monkeypatch.setattr(show, "update_progress_artifact", update)
    progress = show.Progress("train", logging.getLogger("tests.show"))
    event = {"kind": "progress", "what": "training", "total": 100, "unit": "steps"}
    for second in range(0, 200, 5):
        clock[0] += 5
        away[0] = 20 <= second < 90  # two tries meet this
        progress({**event, "done": second // 2})
    assert shown[:4] == [0, 2, 5, 7]
    assert shown[4] > 45  # a while after the server came back
    assert len(shown) > 15
    assert [record.message for record in caplog.records] == ["Progress is not shown for now: away"]
