"""Kills of what `make serve` runs: the flow's process, the worker, the server, and the flow together with the worker."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.flows.processes import of_project
from tests.flows.projects import environment, make_project
from tests.flows.servers import free_port

TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
VICTIMS = ("flow", "worker", "server", "flow and worker", "cancel", "worker, then cancel")
MINUTES = 5  # within which a run must have a terminal state


@dataclass
class Served:
    """A served project."""

    root: Path
    clones: Path
    url: str
    process: subprocess.Popen[str]

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """A request to the server; tried again while it is away."""
        import json
        import urllib.error
        import urllib.request

        data = None if body is None else json.dumps(body).encode()
        for _ in range(120):
            try:
                address, kind = f"{self.url}/api/{path}", {"Content-Type": "application/json"}
                request = urllib.request.Request(address, data, kind, method=method)
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return json.loads(answer.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise
                time.sleep(1)
            except OSError:
                time.sleep(1)
        raise AssertionError("the server did not come back")

    def start_run(self, seed: int) -> str:
        """A run of `finetune` with another seed."""
        deployment = self.ask("deployments/name/finetune/finetune")["id"]
        body = {"parameters": {"parameters": {"train": {"seed": seed}}}}
        return str(self.ask(f"deployments/{deployment}/create_flow_run", body)["id"])

    def state(self, run: str) -> str:
        """Its state."""
        return str(self.ask(f"flow_runs/{run}")["state_type"])

    def wait_for_end(self, run: str) -> str | None:
        """Its terminal state, or None when it has none in time."""
        deadline = time.monotonic() + MINUTES * 60
        while time.monotonic() < deadline:
            if (state := self.state(run)) in TERMINAL:
                return state
            time.sleep(1)
        return None


@contextmanager
def serving(base: Path, seconds: float = 8) -> Iterator[Served]:
    """`make serve` in a project whose training takes a while."""
    root = make_project(base / "project", served=True)
    port = free_port()
    values = {name: value for name, value in environment().items() if not name.startswith("PREFECT_") and name != "PYTHONPATH"}
    values |= {
        "PREFECT_HOME": str(base / "served-home"),
        "DAGOBERT_CLONES": str(base / "clones"),
        "FAKE_SECONDS": f'{{"train": {seconds}}}',
    }
    command = [sys.executable, "-m", "flows.serve", "--port", str(port)]
    log = (base / "serve.log").open("w")
    process = subprocess.Popen(command, cwd=root, env=values, stdout=log, stderr=log, text=True)
    try:
        deadline = time.monotonic() + 300
        while "open http" not in (base / "serve.log").read_text():
            assert process.poll() is None, (base / "serve.log").read_text()
            assert time.monotonic() < deadline, (base / "serve.log").read_text()
            time.sleep(0.5)
        yield Served(root, base / "clones", f"http://127.0.0.1:{port}", process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=90)
        log.close()


def kills(n: int, seed: int, base: Path, victims: tuple[str, ...] = VICTIMS) -> list[str]:
    """N kills, each victim in turn, at a random moment of a run."""
    generator = random.Random(seed)
    failures = []
    with serving(base) as place:
        for number in range(1, n + 1):
            victim = victims[number % len(victims)]
            run = place.start_run(seed=generator.randrange(2**31))
            wait_until_running(place, run)
            time.sleep(generator.uniform(0, 12))
            strike(place, victim, run)
            state = place.wait_for_end(run)
            found = None if state else f"no terminal state after {MINUTES} minutes"
            found = found or left_running(place)
            if found is None:
                next_run = place.start_run(seed=generator.randrange(2**31))
                ended = place.wait_for_end(next_run)
                found = None if ended == "COMPLETED" else f"the next run ended as {ended}"
            print(f"served {number}/{n}: {victim}: {state}: {found or 'fine'}", flush=True)
            failures += [f"{victim}: {found}"] if found else []
    if left := of_project(base):
        failures.append(f"left after serve ended: {[p.cmdline() for p in left]}")
    return failures


def wait_until_running(place: Served, run: str) -> None:
    """Wait for a worker to have started it."""
    deadline = time.monotonic() + 180
    while place.state(run) in ("SCHEDULED", "PENDING"):
        assert time.monotonic() < deadline, "the worker did not start the run"
        time.sleep(0.5)


def strike(place: Served, victim: str, run: str) -> None:
    """Kill (-9) the victim, or cancel the run as the UI does, or both."""
    if victim == "worker, then cancel":
        strike(place, "worker", run)
        time.sleep(15)  # the next worker is there, and did not start this run
    if "cancel" in victim:
        place.ask(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
        return
    marks = {"flow": ("prefect.engine", "flow-run"), "worker": ("worker start",), "server": ("server start",)}
    wanted = [mark for name in victim.split(" and ") for mark in marks[name]]
    for process in psutil.Process(place.process.pid).children(recursive=True) + of_project(place.root):
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if any(mark in line for mark in wanted) and "leash.py" not in line:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def left_running(place: Served) -> str | None:
    """Processes that still work in clones although no run lives."""
    deadline = time.monotonic() + 60
    while left := of_project(place.clones):
        if time.monotonic() > deadline:
            return f"left running: {[process.cmdline() for process in left]}"
        time.sleep(0.5)
    return None
