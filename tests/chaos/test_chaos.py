from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_twenty_kills_change_nothing(repository: Path) -> None:
    """A short `make chaos`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--kills", "20"], cwd=repository, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 killed runs" in done.stdout
    inside = re.search(r"(\d+) inside a save", done.stdout)
    assert inside is not None
    assert int(inside.group(1)) >= 5


def test_new_processes_publish_the_same_bytes(repository: Path) -> None:
    """Two threads, bf16 where there is any, through the train stage. `make chaos` runs 20."""
    command = [sys.executable, "-m", "tests.chaos", "--kills", "0", "--full-disks", "0", "--damages", "0", "--again", "3"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"3 of 3 new processes published the same bytes \(\w+, 2 threads\)", done.stdout), done.stdout
