from __future__ import annotations

from pathlib import Path

from tests.flows import projects


def test_the_server_of_the_installed_versions_starts(prefect_server):
    import urllib.request

    with urllib.request.urlopen(f"{prefect_server.api_url}/admin/version") as answer:
        assert b"3." in answer.read()


def test_flow_leaves_a_clean_status_and_a_second_run_does_nothing(in_project: Path):
    from flows.finetune import finetune

    finetune()
    assert projects.status(in_project) == {}
    lock = (in_project / "dvc.lock").read_bytes()
    finetune()
    assert (in_project / "dvc.lock").read_bytes() == lock
    assert "didn't change" in projects.sh(in_project, "dvc", "repro")
    assert not any((in_project / ".dagobert").rglob("*storage*"))
