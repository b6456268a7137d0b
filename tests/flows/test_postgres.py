"""A shared server's database: a PostgreSQL of this machine, as docs/prefect.md sets one up, in a directory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.flows.conftest import drain
from tests.flows.servers import Server, ask, free_port, running_server

pytestmark = pytest.mark.postgres
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))  # Debian keeps them out of PATH
PG_CTL = str(PROGRAMS[-1]) if PROGRAMS else shutil.which("pg_ctl")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of an empty database; its server is ended afterwards."""
    if PG_CTL is None:
        pytest.skip("no PostgreSQL here (Debian: apt-get install postgresql)")
    with TemporaryDirectory(prefix="dagobert-postgres-") as name:  # pytest's own directories are closed to other users
        yield from serving(Path(PG_CTL).parent, Path(name))


def serving(programs: Path, base: Path) -> Iterator[str]:
    """A PostgreSQL that keeps all it has in `base`."""
    data, port = base / "data", free_port()
    as_owner = owner(base)
    options = f"-p {port} -k {base} -c listen_addresses=127.0.0.1 -c fsync=off"

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*as_owner, str(programs / program), *arguments], cwd=base, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("initdb", "-D", str(data), "-U", "prefect", "--auth=trust", "-E", "UTF8", "--locale=C")
    run("pg_ctl", "start", "-w", "-D", str(data), "-l", str(base / "log"), "-o", options)
    try:
        at = ["-h", "127.0.0.1", "-p", str(port), "-U", "prefect"]
        run("createdb", *at, "prefect")
        run("psql", *at, "-d", "prefect", "-c", "CREATE EXTENSION IF NOT EXISTS pg_trgm")
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
    finally:
        run("pg_ctl", "stop", "-D", str(data), "-m", "immediate")


def owner(base: Path) -> list[str]:
    """PostgreSQL refuses to run as root: then its own user owns the directory."""
    if os.geteuid() != 0:
        return []
    if shutil.which("runuser") is None or subprocess.run(["id", "postgres"], capture_output=True).returncode:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    shutil.chown(base, "postgres")
    return ["runuser", "-u", "postgres", "--"]


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("prefect-on-postgres")
    with running_server(home, PREFECT_SERVER_DATABASE_CONNECTION_URL=database) as running:
        yield running
        drain()


def test_a_run_is_recorded_in_postgres(
    server: Server, project: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    from tests.flows.one_stage import one_stage

    monkeypatch.chdir(project)
    monkeypatch.setenv("PYTHONPATH", os.fspath(repository))
    with temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_HOME: server.home}):
        state: Any = one_stage("fetch", return_state=True)
    run = ask(server, f"flow_runs/{state.state_details.flow_run_id}")
    assert run["state_type"] == "COMPLETED"
    assert not list(server.home.glob("*.db")), "SQLite was used"
