"""One Prefect server for the session, on a fresh home and a free port, and a small project for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows import servers
from tests.flows.projects import make_project


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """A real server process, as `prefect server start` makes it."""
    with servers.running_server(tmp_path_factory.mktemp("prefect-home")) as server:
        yield server
        drain()


def drain() -> None:
    """Send what this process still has to say to the server, before it goes."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=30)
    EventsWorker.drain_all(timeout=30)


@pytest.fixture(scope="session")
def project_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("project") / "template")


@pytest.fixture
def project(project_template: Path, tmp_path: Path) -> Path:
    """A repository of its own in which nothing has run yet."""
    root = tmp_path / "project"
    shutil.copytree(project_template, root, symlinks=True)
    return root


@pytest.fixture
def in_project(project: Path, prefect_server: servers.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process works in a project and speaks to the session's server."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    monkeypatch.chdir(project)
    monkeypatch.setenv("PYTHONPATH", os.fspath(Path(__file__).resolve().parents[2]))
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url, PREFECT_HOME: prefect_server.home}):
        yield project
