from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks import processes

SLEEPER = "import time; print('ready', flush=True); time.sleep(60)"


def gone(pid: int, within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def run(code: str, tmp_path: Path, **options: object) -> processes.Finished:
    return processes.run([sys.executable, "-c", code], tmp_path, dict(os.environ), **options)  # type: ignore[arg-type]


def test_lines_and_exit_code_come_back(tmp_path: Path) -> None:
    seen: list[str] = []
    done = run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", tmp_path, on_line=seen.append)
    assert (done.returncode, sorted(done.tail), sorted(seen), done.timed_out) == (3, ["err", "out"], ["err", "out"], False)


def test_a_signal_is_told_as_128_and_its_number(tmp_path: Path) -> None:
    assert run("import os; os.kill(os.getpid(), 9)", tmp_path).returncode == 128 + 9


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    done = processes.run(["no-such-command"], tmp_path, dict(os.environ))
    assert done.returncode == 127
    assert "no-such-command" in done.tail[0]


def test_time_is_up_ends_the_whole_group_even_when_deaf(tmp_path: Path) -> None:
    code = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a child inherits this
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
    pids: list[int] = []
    done = run(code, tmp_path, timeout=1, grace=0.5, on_line=lambda line: pids.append(int(line)))
    assert done.timed_out
    assert gone(pids[0])
    assert done.seconds < 15


def test_what_a_command_leaves_behind_is_ended_too(tmp_path: Path) -> None:
    code = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], stdout=subprocess.DEVNULL).pid)"
    )
    done = run(code, tmp_path)
    assert done.returncode == 0
    assert gone(int(done.tail[0]), within=1)


def test_an_exception_in_the_caller_ends_the_command(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("import os, time; print(os.getpid(), flush=True); time.sleep(60)", tmp_path, on_line=interrupt, grace=2)
    assert gone(pids[0], within=1)


@pytest.mark.parametrize("victim", ["owner", "leash"])
def test_killing_owner_or_leash_leaves_no_orphan(tmp_path: Path, victim: str, repository: Path) -> None:
    owner_code = """
import os, sys
from pathlib import Path
from tasks import processes
processes.run([sys.executable, "-c", "import os, time; print(os.getpid(), os.getppid(), flush=True); time.sleep(60)"],
              Path("."), dict(os.environ), grace=1, on_line=lambda line: print(line, flush=True))
"""
    owner = subprocess.Popen([sys.executable, "-c", owner_code], cwd=repository, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    command, leash = map(int, owner.stdout.readline().split())
    os.kill(owner.pid if victim == "owner" else leash, signal.SIGKILL)
    assert gone(command)
    assert gone(leash)
    owner.wait(timeout=10)
    owner.stdout.close()
