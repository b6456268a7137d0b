"""Serves the reports that runs left, read-only, for the links in the Prefect UI: browsers open no `file:` link from a page.

This machine only, whole reports by name, nothing else. A report shows text from the data, so its page may load and run nothing.
"""

from __future__ import annotations

import os
import re
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOST = "127.0.0.1"
_REPORT = re.compile(r"/([A-Za-z0-9_-]+\.html)")
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Showcase(ThreadingHTTPServer):
    """A server of the HTML files of one directory."""

    daemon_threads = True

    def __init__(self, directory: Path, port: int) -> None:
        """Listen; requests are answered from `start` on.

        Raises:
            OSError: the port is taken.
        """
        self.directory = directory
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str:
        """Where the reports are."""
        return f"http://{HOST}:{self.server_port}/"

    def start(self) -> None:
        """Answer from a thread, until the process ends."""
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Showcase

    def do_GET(self) -> None:
        """A report."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Whether there is such a report."""
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        if self.headers.get("Host") not in [f"{name}:{self.server.server_port}" for name in (HOST, "localhost")]:
            self.send_error(HTTPStatus.FORBIDDEN)  # a page elsewhere that has its name point here
            return
        report = self._report()
        if report is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        for name, value in {**_HEADERS, "Content-Length": str(len(report))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(report)

    def _report(self) -> bytes | None:
        """The file that is asked for; nothing that is not a plain name is looked for, and no link is followed."""
        match = _REPORT.fullmatch(self.path)
        if match is None:
            return None
        try:
            with open(os.open(self.server.directory / match[1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                return file.read()
        except OSError:
            return None

    def version_string(self) -> str:
        """No versions for strangers."""
        return "dagobert"

    def log_message(self, *_: object) -> None:
        """Nothing: the terminal is for what the person asked for."""
