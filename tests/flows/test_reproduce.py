"""The verdict of `dagobert reproduce` becomes the state of the run; the command is a stand-in here."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

STAND_IN = """#!{python}
import json, pathlib, sys
rest = sys.argv[2:]
verdict = rest[-1]
if verdict == "nothing":
    sys.exit("dagobert reproduce: nothing: no commit, tag, branch or experiment has this name")
code = {{"identical": 0, "different": 1, "cannot run": 2}}[verdict]
report = dict(revision=verdict, commit="c0ffee", verdict=verdict, exit_code=code, first="train", missing=[])
report["causes"] = ["another seed"]
pathlib.Path(rest[rest.index("--json") + 1]).write_text(json.dumps(report))
pathlib.Path(rest[rest.index("--markdown") + 1]).write_text("## " + verdict)
print(json.dumps(rest))
sys.exit(code)
"""


@pytest.fixture
def stand_in(in_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    command = directory / "dagobert"
    command.write_text(STAND_IN.format(python=sys.executable))
    command.chmod(command.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr("tasks.dvc._this_pythons_commands", lambda: f"{directory}{os.pathsep}{Path(sys.prefix) / 'bin'}")
    return in_project


def test_a_verdict_is_a_state(stand_in: Path) -> None:
    from flows.reproduce import reproduce

    same = reproduce("identical", return_state=True)
    assert (same.name, same.message) == ("Identical", "identical: identical\nanother seed")
    other = reproduce("different", pull=True, return_state=True)
    assert other.is_failed()
    assert (other.name, other.message) == ("Different", "different: different, first in train\nanother seed")


def test_exit_codes_from_a_shell(stand_in: Path) -> None:
    from flows.reproduce import main

    assert main(["identical", "--fetch"]) == 0
    assert main(["different"]) == 1
    assert main(["cannot run"]) == 2
    assert main(["nothing"]) == 2


def test_what_the_command_reports_is_what_the_task_reads() -> None:
    from dagobert.verdicts import EXIT_CODES, Report
    from tasks.reproduction import EXIT_CODES as OF_STATES
    from tasks.reproduction import STATES, state_of

    assert set(STATES) == set(EXIT_CODES)
    for verdict, code in EXIT_CODES.items():
        state = state_of(json.loads(json.dumps(Report("main", "c0ffee", verdict, first="train").as_json())))
        assert state.is_completed() == (code == 0)
        assert OF_STATES.get(str(state.name), 2) == code
