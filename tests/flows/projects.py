"""Small DVC repositories with the graph and parameters of this one and stages that take no time (see `fake_stage`)."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ("fetch", "clean", "encode-labels", "tokenize", "split", "train", "evaluate")


def environment() -> dict[str, str]:
    path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    identity = {
        f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "t"), ("EMAIL", "t@t"))
    }
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", **identity, "PYTHONPATH": str(REPOSITORY)}


def sh(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def filled(path: str, params: dict[str, Any]) -> str:
    """A path of dvc.yaml with the parameters it names, `${data.path}`, filled in."""
    return re.sub(r"\$\{([^}]+)\}", lambda m: str(functools.reduce(lambda v, k: v[k], m[1].split("."), params)), path)


def made(path: str, graph: dict[str, Any]) -> bool:
    return any(path in outs(stage) for stage in graph["stages"].values())


def outs(stage: dict[str, Any]) -> list[str]:
    return [next(iter(o)) if isinstance(o, dict) else o for key in ("outs", "metrics") for o in stage.get(key, [])]


def make_project(root: Path, *, served: bool = False) -> Path:
    """A committed repository whose stages are fakes; nothing has run yet. With `served`, it has flows to deploy."""
    root.mkdir(parents=True)
    for name in ("flows", "tasks", "dagobert") if served else ():
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("prefect.yaml", "prefect.toml") if served else ():
        shutil.copy(REPOSITORY / name, root / name)
    graph = YAML(typ="safe", pure=True).load((REPOSITORY / "dvc.yaml").read_text())
    params = YAML(typ="safe", pure=True).load((REPOSITORY / "params.yaml").read_text())
    for name in STAGES:
        stage = graph["stages"][name]
        stage["cmd"] = f"python fake_stage.py {name}"
        stage["deps"] = ["fake_stage.py", *(dep for dep in stage["deps"] if not dep.startswith("dagobert/"))]
        for dep in (filled(dep, params) for dep in stage["deps"]):
            if (REPOSITORY / dep).is_file() and not made(dep, graph):
                (root / dep).parent.mkdir(exist_ok=True)
                shutil.copy(REPOSITORY / dep, root / dep)
    graph["stages"] = {name: graph["stages"][name] for name in STAGES}
    (root / "dvc.yaml").write_text(json.dumps({"stages": graph["stages"]}, indent=1))
    shutil.copy(REPOSITORY / "params.yaml", root / "params.yaml")
    shutil.copy(Path(__file__).with_name("fake_stage.py"), root / "fake_stage.py")
    (root / ".gitignore").write_text(".dagobert/\n__pycache__/\n")
    sh(root, "git", "init", "-q", "-b", "main")
    sh(root, "git", "config", "user.email", "t@t")
    sh(root, "git", "config", "user.name", "t")
    sh(root, "dvc", "init", "-q")
    sh(root, "dvc", "config", "core.analytics", "false")
    sh(root, "dvc", "config", "core.check_update", "false")
    sh(root, "git", "add", "-A")
    sh(root, "git", "commit", "-q", "-m", "A project")
    return root


def set_fault(root: Path, stage: str, **fault: Any) -> None:
    path = root / ".dagobert" / "faults" / stage
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fault))


def status(root: Path) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(sh(root, "dvc", "status", "--json"))
    return changed
