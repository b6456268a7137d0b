"""Server, UI, deployments and worker on this machine, with one command.

Each of the two processes is held on a leash, started again when it dies, and ended with this one. Loopback only, unless an
auth string is set: whoever reaches the server can run code here. Flow runs whose process is gone get their last state.

    python -m flows.serve [--port 4200]                        reports of runs at the port above it
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.context import refresh_global_settings_context

from flows.showcase import HOST, Showcase
from tasks import dvc, leash
from tasks.errors import TaskError, WorkplaceError
from tasks.reports import REPORTS_URL
from tasks.setting import repository

if TYPE_CHECKING:
    from prefect.client.schemas.actions import DeploymentScheduleCreate

POOL = "dagobert"
LEASES = "prefect.server.concurrency.lease_storage.filesystem"  # in memory, a server that dies takes every run's slot with it
START = 180.0  # seconds a first server start may take: it migrates its database
LOOK = 30.0  # seconds between looks for dead runs
_QUICK, _LONGEST_WAIT = 60.0, 60.0


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted; exit code 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description="Prefect server, UI, deployments and worker.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=4200)
    parser.add_argument("--reports-port", type=int, help="port of the runs' HTML reports (default: the one above --port)")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        check_address(arguments.host, arguments.port)
        serve(repository(), arguments.host, arguments.port, arguments.reports_port or arguments.port + 1)
    except TaskError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("serve: stopping", file=sys.stderr)
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def check_address(host: str, port: int) -> None:
    """Refuse an address that others reach without an auth string, and a port that is taken.

    Raises:
        WorkplaceError: which it is, and what to do.
    """
    if not is_loopback(host) and not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        raise WorkplaceError(
            f"{host} can be reached by others, who could then run code on this machine. "
            "Set PREFECT_SERVER_API_AUTH_STRING=user:password first (docs/prefect.md), or leave --host away."
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise WorkplaceError(f"{host}:{port} cannot be used: {error.strerror}. Choose another --port.") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def settings(root: Path, host: str, port: int) -> dict[str, str]:
    """The environment of server and worker."""
    reach = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    url = f"http://{f'[{reach}]' if ':' in reach else reach}:{port}/api"
    values = {
        "PREFECT_API_URL": url,
        "PREFECT_UI_API_URL": os.environ.get("PREFECT_UI_API_URL", url),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
        "DO_NOT_TRACK": "1",
        "DAGOBERT_ROOT": str(root),
    }
    if auth := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        values["PREFECT_API_AUTH_STRING"] = auth
    return values


def serve(root: Path, host: str, port: int, reports_port: int) -> None:
    """Run everything until interrupted."""
    if is_loopback(host):
        show_reports(root, reports_port)
    environment = dvc.environment(root, settings(root, host, port))
    os.environ.update(settings(root, host, port))
    refresh_global_settings_context()
    prefect = [sys.executable, "-m", "prefect"]
    server = Kept("server", [*prefect, "server", "start", "--host", host, "--port", str(port)], root, environment)
    worker = Kept("worker", [*prefect, "worker", "start", "--pool", POOL, "--name", socket.gethostname()], root, environment)
    try:
        say("starting the server (a first start takes a minute)")
        server.start()
        url = environment["PREFECT_API_URL"]
        wait_for_server(url, server)
        deploy(root, environment)
        worker.start()
        say(f"open {url.removesuffix('/api')}/v2/deployments  (logs: {server.log.parent}; stop with Ctrl-C)")
        threading.Thread(target=_keep_form_fresh, args=(root, environment), daemon=True).start()
        watch(root, [server, worker])
    finally:
        worker.stop()
        server.stop()


def show_reports(root: Path, port: int) -> None:
    """Serve the reports that runs leave in `.dagobert/reports`, and have runs link to them; without, they name the file."""
    try:
        showcase = Showcase(root / ".dagobert" / "reports", port)
    except (OSError, OverflowError) as error:
        say(
            f"reports are not served: {HOST}:{port} cannot be used ({error.__class__.__name__}). Choose another --reports-port."
        )
        return
    showcase.start()
    os.environ[REPORTS_URL] = showcase.url


class Kept:
    """A process on a leash that is started again when it ends."""

    def __init__(self, name: str, command: list[str], root: Path, environment: dict[str, str]) -> None:
        """Nothing starts before `start`."""
        self.name, self.command, self.root, self.environment = name, command, root, environment
        self.log = root / ".dagobert" / "logs" / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._wait = 1.0

    def start(self) -> None:
        """Start it; what it says goes to its log file."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        held = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), "20", *self.command]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                held,
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._started = time.monotonic()

    def ended(self) -> bool:
        """Whether it is not running now."""
        return self.process is not None and self.process.poll() is not None

    def start_again(self) -> None:
        """Start it anew, after a wait that grows while it keeps dying at once."""
        quick = time.monotonic() - self._started < _QUICK
        self._wait = min(self._wait * 2, _LONGEST_WAIT) if quick else 1.0
        say(f"the {self.name} ended; starting it again in {self._wait:.0f} s (see {self.log})")
        time.sleep(self._wait)
        self.start()

    def stop(self) -> None:
        """End it and all it started."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def watch(root: Path, kept: list[Kept]) -> None:
    """Start again what ends; bury dead runs now and then, beside it."""
    threading.Thread(target=_bury_for_ever, args=(root,), daemon=True).start()
    while True:
        for process in kept:
            if process.ended():
                process.start_again()
        time.sleep(1)


def _bury_for_ever(root: Path) -> None:
    from prefect.client.orchestration import get_client

    from tasks.liveness import bury_dead_runs

    while True:
        try:
            with get_client(sync_client=True) as client:
                for name in bury_dead_runs(client, root, POOL):
                    say(f"the process of run {name} is gone; marked as crashed")
        except Exception as error:  # the server may be away for a moment
            say(f"looking for dead runs failed: {error}")
        time.sleep(LOOK)


def _keep_form_fresh(root: Path, environment: dict[str, str]) -> None:
    """Deploy again when another params.yaml is committed or checked out: the form shows its values."""
    from tasks.forms import committed

    shown = committed()
    while True:
        time.sleep(LOOK)
        if (now := committed()) == shown:
            continue
        try:
            deploy(root, environment)
            shown = now
            say("another params.yaml is checked out; the form shows its values")
        except Exception as error:  # the server may be away for a moment
            say(f"showing the new params.yaml in the form failed: {error}")


def wait_for_server(url: str, server: Kept) -> None:
    """Wait until the server answers.

    Raises:
        WorkplaceError: it ended, or does not answer in time; with its last words.
    """
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and not server.ended():
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):  # it answers, and asks who we are
                return
        except OSError:
            pass
        time.sleep(0.3)
    words = "\n".join(server.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
    raise WorkplaceError(f"the Prefect server did not start (its log: {server.log}):\n{words}")


def deploy(root: Path, environment: dict[str, str]) -> None:
    """Make pool, limit and deployments; the schedules that are there stay as a person left them.

    Raises:
        WorkplaceError: in Prefect's words.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    from tasks import limits
    from tasks.stages import GPU_LIMIT

    plan, schedules = schedules_apart(root)
    with get_client(sync_client=True) as client:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        limits.ensure(GPU_LIMIT)
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(plan)]
        done = subprocess.run(command, cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise WorkplaceError(f"the deployments were not made:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        for deployment in client.read_deployments():
            there = {schedule.slug for schedule in deployment.schedules}
            missing = [schedule for schedule in schedules.get(deployment.name, []) if schedule.slug not in there]
            if missing:
                client.create_deployment_schedules(deployment.id, missing)


def schedules_apart(root: Path) -> tuple[Path, dict[str, list[DeploymentScheduleCreate]]]:
    """A copy of prefect.yaml without schedules, and the schedules of each deployment.

    Prefect makes all schedules of a deployment anew when one of them was added in the UI, and would take back what was edited.
    """
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from ruamel.yaml import YAML

    content = YAML(typ="safe", pure=True).load(root / "prefect.yaml")
    schedules = {}
    for deployment in content["deployments"]:
        found = [dict(schedule) for schedule in deployment.pop("schedules", None) or []]
        schedules[deployment["name"]] = [
            DeploymentScheduleCreate.model_validate(
                {name: schedule.pop(name) for name in ("slug", "active", "parameters") if name in schedule}
                | {"schedule": schedule}
            )
            for schedule in found
        ]
    plan = root / ".dagobert" / "deployments.yaml"
    plan.parent.mkdir(exist_ok=True)
    plan.write_text(json.dumps(content), encoding="utf-8")
    return plan, schedules


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(f"serve: {text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
