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
