from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.flows import doors


def test_the_two_doors_agree(
    project_template: Path, tmp_path: Path, prefect_server: Any, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    from flows.finetune import finetune

    monkeypatch.setenv("PYTHONPATH", os.fspath(repository))

    def run_flow(root: Path) -> None:
        monkeypatch.chdir(root)
        finetune()

    by_hand, by_flow = doors.twins(project_template, tmp_path)
    generator = random.Random(5)
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url, PREFECT_HOME: prefect_server.home}):
        for change in ({}, doors.random_change(generator)):
            assert doors.disagreement(by_hand, by_flow, change, run_flow) is None
