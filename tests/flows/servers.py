"""Starts and stops a real Prefect server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import leash


@dataclass(frozen=True)
class Server:
    home: Path
    api_url: str
    process: subprocess.Popen[bytes]

    @property
    def ui_url(self) -> str:
        return self.api_url.removesuffix("/api")

    def environment(self) -> dict[str, str]:
        """What a process needs to speak to this server."""
        return {"PREFECT_HOME": str(self.home), "PREFECT_API_URL": self.api_url}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def ask(server: Server, path: str, body: dict[str, Any] | None = None) -> Any:
    """A request to a server, and its answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.api_url}/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@contextmanager
def running_server(home: Path, port: int | None = None, **settings: str) -> Iterator[Server]:
    """A server that answers; ended with all it started."""
    port = port or free_port()
    api_url = f"http://127.0.0.1:{port}/api"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_UI_API_URL": api_url,
        "PREFECT_API_URL": api_url,
        "DO_NOT_TRACK": "1",
        **settings,
    }
    held = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), "5"]  # it ends with this process, however that ends
    log = home / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*held, sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            cwd=home,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until_healthy(api_url, process, log)
        yield Server(home, api_url, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def wait_until_healthy(api_url: str, process: subprocess.Popen[bytes], log: Path, timeout: float = 180) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{api_url}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no server after {timeout} s: {log.read_text()}")
