from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from dagobert import doctor


def test_every_thing_gets_a_line_and_nothing_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = list(doctor.examine(tmp_path))  # no repository at all
    assert {finding.name for finding in found} >= {
        "python",
        "torch",
        "threads",
        "git",
        "dvc",
        "cache",
        "remotes",
        "prefect",
        "disk",
    }
    assert {finding.state for finding in found} <= {"ok", "look", "bad"}
    assert len(doctor.text(found).splitlines()) >= len(found)


def test_packages_are_compared_with_the_lock() -> None:
    lock = "# made by hand\nnumpy==0.0.1\nno-such-package==1.0\npytest[dev]==0 ; python_version > '3'\n-e .\n"
    found = doctor.differences(lock)
    assert set(found) == {"numpy", "no-such-package", "pytest[dev]"}
    assert found["no-such-package"] == ("1.0", None)


def test_a_local_build_of_the_locked_version_is_the_locked_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cpu")
    assert doctor.differences("torch==2.13.0") == {}


def test_thread_limits_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    (finding,) = doctor._threads(tmp_path)
    assert finding.state == "look"
    assert "OMP_NUM_THREADS=77" in finding.text


def test_what_a_killed_dvc_left_is_named(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    for name in ("dvc.yaml", ".dvc/config", ".dvc/tmp/rwlock"):
        (tmp_path / name).touch()
    (finding,) = doctor._dvc(tmp_path)
    assert finding.state == "bad"
    assert finding.text.endswith("rm .dvc/tmp/rwlock")


def test_remotes_that_answer_and_that_do_not(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert doctor.unreachable(f"http://127.0.0.1:{server.getsockname()[1]}/x") is None
        port = server.getsockname()[1]
    assert "does not answer" in str(doctor.unreachable(f"ssh://127.0.0.1:{port}/x"))
    assert doctor.unreachable(str(tmp_path)) is None
    assert "no such directory" in str(doctor.unreachable("/no/such/store"))
    assert doctor.unreachable("s3://bucket/x") is None


def test_the_port_and_the_endpoint_of_a_remote_are_those_of_its_options() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert doctor.unreachable("ssh://127.0.0.1/x", {"port": port}) is None
        assert doctor.unreachable("ssh://127.0.0.1:1/x", {"port": port}) is None  # as DVC reads it
        assert doctor.unreachable("s3://bucket/x", {"endpointurl": f"http://127.0.0.1:{port}"}) is None
    assert f"127.0.0.1:{port} does not answer" in str(doctor.unreachable("ssh://127.0.0.1/x", {"port": port}))
    assert "does not answer" in str(doctor.unreachable("s3://bucket/x", {"endpointurl": f"http://127.0.0.1:{port}"}))
