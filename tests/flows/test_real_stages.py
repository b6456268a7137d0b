"""What a fake stage cannot show: training goes on where it was, and a disk that is full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.flows import full_disk, real


def test_training_killed_with_its_flow_goes_on_to_the_same_model(tmp_path: Path, prefect_server: Any) -> None:
    assert real.resumed_wrongly(tmp_path, prefect_server.environment()) is None


@pytest.mark.skipif(not full_disk.possible(), reason="no user namespaces here, so no small disk can be mounted")
def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path: Path, prefect_server: Any) -> None:
    template = real.make_real_project(tmp_path / "template", rows=20_000)
    told = full_disk.run(template, tmp_path / "disk", prefect_server.environment())
    assert told["code"] == 2, told["said"]
    assert "the disk is full: free some space and run again" in told["said"]
    assert "Traceback" not in told["said"]
    assert told["partial"] == []
    assert told["next"] == 0, told["then"]
