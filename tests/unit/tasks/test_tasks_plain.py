from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PRINTS_TO_NOBODY = """
import logging, sys
from prefect.logging.configuration import setup_logging
from tasks.plain import outlive_the_reader
setup_logging()
outlive_the_reader()
sys.stdin.readline()  # the reader is gone now
for _ in range(3):
    logging.getLogger("any").warning("a line")
    print("another", flush=True)
open(sys.argv[1], "w").write("went on")
"""


def test_a_run_goes_on_when_the_worker_that_reads_its_lines_dies(tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, "-c", PRINTS_TO_NOBODY, str(tmp_path / "end")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=repository, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.close()
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "end").read_text() == "went on"
