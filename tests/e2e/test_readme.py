"""Every command of the README, in order, in a copy of the repository with a tiny BERT; yaml blocks go to params.yaml."""

from __future__ import annotations

import csv
import json
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from tests.e2e.conftest import environment, runner, set_params, write_reviews

# Run elsewhere: this very test run, and what serves until it is stopped (tests/flows).
ELSEWHERE = {"make test", "make check", "make serve"}


class Block(NamedTuple):
    """A fenced block of the README."""

    language: str
    text: str


def blocks(readme: str) -> Iterator[Block]:
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL):
        yield Block(language, text)


def commands(text: str) -> Iterator[str]:
    for line in text.splitlines():
        command = re.sub(r"\s+#.*$", "", line).strip()
        if command:
            yield command


def inline_commands(readme: str) -> set[str]:
    return set(re.findall(r"`((?:make|dvc|dagobert|python -m) [^`]*)`", readme))


def write_own_files(directory: Path) -> None:
    """What the README supposes a user to have beside the repository."""
    write_reviews(directory / "new-reviews.csv", 12, seed=1)
    rng = random.Random(0)
    words = {
        "billing": "invoice money refund paid".split(),
        "delivery": "parcel late courier lost".split(),
        "other": "hello why".split(),
    }
    with (directory / "tickets.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["message", "team"])
        for i in range(240):
            team = sorted(words)[i % 3]
            writer.writerow([" ".join(rng.choice(words[team]) for _ in range(8)) + f", ticket {i}", team])


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def wait_for_queue(run: Callable[..., str]) -> None:
    for _ in range(180):
        status = run("dvc", "queue", "status")
        if "Queued" not in status and "Running" not in status:
            assert "Failed" not in status, status
            return
        time.sleep(1)
    raise AssertionError(run("dvc", "queue", "status"))


@pytest.mark.timeout(1800)
def test_every_command_works(readme: str, make_workspace: Callable[..., Path]) -> None:
    workspace = make_workspace("readme")
    write_own_files(workspace.parent)
    run = runner(workspace)
    done: list[str] = []
    for block in blocks(readme):
        if block.language == "yaml":
            for section, values in YAML(typ="safe", pure=True).load(block.text).items():
                set_params(workspace / "params.yaml", {f"{section}.{name}": value for name, value in values.items()})
        elif block.language == "python":
            run("python", "-c", block.text)
        elif block.language == "sh":
            for command in commands(block.text):
                if command in ELSEWHERE:
                    continue
                active = environment() | {"PATH": f"{workspace}/.venv/bin:{environment()['PATH']}"}
                finished = subprocess.run(
                    ["sh", "-c", command],
                    cwd=workspace,
                    env=active,
                    capture_output=True,
                    text=True,
                    check=False,
                    stdin=subprocess.DEVNULL,
                )
                assert finished.returncode == 0, f"{command}\n{finished.stdout[-3000:]}\n{finished.stderr[-6000:]}"
                if command.startswith("dvc queue start"):
                    wait_for_queue(run)
                done.append(command)
    assert "make run" in done
    assert len((workspace / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 13
    assert json.loads(run("dvc", "status", "--json")) == {}


def test_commands_in_running_text_exist(readme: str, repository: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    from dagobert.cli import parser

    known = set(parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr,arg-type]
    for command in inline_commands(readme):
        program, word, *_ = [*command.split(), ""]
        if program == "make":
            assert word in targets, command
        if program == "dagobert":
            assert word in known or word.isupper(), command


def test_the_picture_shows_the_edges_of_the_graph(readme: str, repository: Path) -> None:
    stages: dict[str, Any] = YAML(typ="safe").load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    made = {
        name if isinstance(name, str) else next(iter(name)): stage
        for stage, body in stages.items()
        for key in ("outs", "metrics", "plots")
        for name in body.get(key, [])
    }
    edges = {
        (made[dep], stage)
        for stage, body in stages.items()
        for dep in (d.replace("${data.path}", "data/raw") for d in body["deps"])
        if dep in made
    }
    picture = next(block.text for block in blocks(readme) if block.language == "mermaid")
    drawn = set()
    for line in picture.splitlines()[1:]:
        sources, targets = line.split("-->")
        drawn |= {(a.strip(), b.strip()) for a in sources.split("&") for b in targets.split("&")}
    assert drawn == edges
