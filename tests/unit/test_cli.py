from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dagobert import cli, runner
from dagobert.errors import DagobertError, Preempted

COMMAND = [str(Path(sys.executable).with_name("dagobert"))]


def test_a_user_error_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "clean"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "dagobert clean: params.yaml: no such file. Run from the root of a Dagobert repository.\n"


def test_stopping_on_request_has_its_own_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(name: str) -> None:
        raise Preempted("saved at step 7; run again to go on")

    monkeypatch.setattr(runner, "run_stage", stop)
    monkeypatch.setattr(cli, "_use_the_code_here", lambda: None)
    assert cli.main(["train"]) == 75
    assert "saved at step 7" in capsys.readouterr().err


def test_the_errors_are_the_tree_drawn_in_their_docstring() -> None:
    from dagobert import errors

    drawn = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, DagobertError):
            assert name in drawn


def test_another_checkout_runs_its_own_code(tmp_path: Path, repository: Path) -> None:
    shutil.copytree(repository / "dagobert", tmp_path / "dagobert", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "dvc.yaml", tmp_path)
    init = tmp_path / "dagobert" / "__init__.py"
    init.write_text(init.read_text() + '\n__version__ = "0.0.0+here"\n')
    here = subprocess.run([*COMMAND, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert here == "dagobert 0.0.0+here\n"
    elsewhere = subprocess.run([*COMMAND, "--version"], cwd=tmp_path.parent, capture_output=True, text=True, check=True).stdout
    assert elsewhere != here


def test_programs_of_an_environment_that_is_not_activated_find_each_other() -> None:
    bare = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"]}
    which = [sys.executable, "-c", "import shutil; print(shutil.which('dagobert'))"]
    found = subprocess.run(which, env=bare, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(found).parent == Path(sys.executable).parent
