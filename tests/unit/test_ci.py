"""`.ci/run` with programs that only say their name."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("there", "last"),
    [
        (["chromium"], "make test-ui"),
        ([], "SKIPPED: the browser tests (make test-ui), because no Chromium could be installed: E: no network"),
    ],
)
def test_browser_tests_are_run_or_said_to_be_skipped(tmp_path: Path, repository: Path, there: list[str], last: str) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "rm", "dirname", "mktemp", "tail", "env"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    says = {"make": 'echo "make $@"', "apt-get": "echo 'E: no network' >&2; exit 100", "chromium": "true"}
    for name in ("make", "apt-get", *there):
        (programs / name).write_text(f"#!/bin/sh\n{says[name]}\n")
        (programs / name).chmod(0o755)
    (tmp_path / ".ci").mkdir()
    shutil.copy(repository / ".ci" / "run", tmp_path / ".ci" / "run")
    done = subprocess.run([tmp_path / ".ci" / "run"], env={"PATH": str(programs)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == last
