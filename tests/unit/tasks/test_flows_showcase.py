from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import serve
from flows.showcase import Showcase
from tasks.reports import REPORTS_URL


@pytest.fixture
def showcase(tmp_path: Path) -> Iterator[Showcase]:
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / "brave-otter.html").write_text("<h1>é</h1>", encoding="utf-8")
    (reports / "notes.txt").write_text("mine")
    (tmp_path / "secret.html").write_text("secret")
    (reports / "link.html").symlink_to(tmp_path / "secret.html")
    with Showcase(reports, 0) as server:
        server.start()
        yield server
        server.shutdown()


def ask(server: Showcase, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)  # sent as it is: nothing tidies `..` away
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, dict(answer.headers)


def test_a_report_is_shown_and_may_load_nothing(showcase: Showcase) -> None:
    status, body, headers = ask(showcase, "/brave-otter.html")
    assert (status, body.decode()) == (200, "<h1>é</h1>")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert ask(showcase, "/brave-otter.html", "HEAD")[:2] == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/../secret.html",
        "/..%2fsecret.html",
        "/%2e%2e/secret.html",
        "//secret.html",
        "/./brave-otter.html",
        "/link.html",
        "/notes.txt",
        "/nothing.html",
        "/brave-otter.html?x",
        "/brave-otter.html%00",
    ],
)
def test_nothing_else_is_shown(showcase: Showcase, path: str) -> None:
    status, body, _ = ask(showcase, path)
    assert status in (400, 404)
    assert b"secret" not in body.replace(b"secret.html", b"")


def test_it_is_read_only_and_answers_to_its_own_name(showcase: Showcase) -> None:
    assert ask(showcase, "/brave-otter.html", "POST")[0] == 501
    assert ask(showcase, "/brave-otter.html", host="evil.example")[0] == 403
    assert showcase.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_named_and_no_link_is_made(
    showcase: Showcase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(REPORTS_URL, "")
    monkeypatch.delenv(REPORTS_URL)
    serve.show_reports(tmp_path, showcase.server_port)
    assert f"127.0.0.1:{showcase.server_port} cannot be used" in capsys.readouterr().out
    import os

    assert REPORTS_URL not in os.environ
